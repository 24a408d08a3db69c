"""A workflow file's text to a checked workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.records import record
from cloche.workflow.check import check_tree
from cloche.workflow.definitions import EXPERIMENTAL_STEP_KEYS, WORKFLOW_ROOT
from cloche.workflow.findings import Findings
from cloche.workflow.jobs import read_defaults, read_jobs
from cloche.workflow.model import Workflow
from cloche.workflow.nodes import Mapping
from cloche.workflow.server_rules import check_server_rules
from cloche.workflow.settings import check_concurrency
from cloche.workflow.steps import scalar_at
from cloche.workflow.triggers import read_triggers
from cloche.workflow.unsupported import refuse_unsupported
from cloche.workflow.yaml import Limits, read

if TYPE_CHECKING:
    from cloche.workflow.nodes import Node


@record
class Rules:
    """How a file is judged.

    ``background_steps=False`` treats the keys of background steps as unknown, as GitHub does where they are not
    switched on. ``staged`` stops after what the schema refuses, as GitHub does; else one pass finds everything.
    """

    limits: Limits = Limits()
    background_steps: bool = True
    staged: bool = False


def parse_workflow(
    text: str | bytes,
    path: str,
    *,
    allow_unsupported: bool = False,
    background_steps: bool = True,
    limits: Limits | None = None,
) -> Workflow:
    """Read and check a workflow file; ``path`` is how messages name it.

    ``allow_unsupported`` leaves out what only Cloche refuses, and what GitHub refuses later; for
    ``background_steps`` see Rules. Together they make the verdict that of GitHub's parser.

    Raises WorkflowError with everything that is wrong, by position. Broken YAML ends the reading, so it comes
    alone; all else is found in one pass.
    """
    rules = Rules(limits or Limits(), background_steps=background_steps)
    findings = Findings()
    root = read_checked(text, path, rules, findings)
    workflow = read_workflow(root, path, findings)
    if not allow_unsupported:
        check_server_rules(root, findings)
        refuse_unsupported(root, findings)
    findings.check()
    return workflow


def read_checked(text: str | bytes, path: str, rules: Rules, findings: Findings) -> Node:
    """Read a workflow file and note what its schema does not allow.

    Raises WorkflowError for what is not even YAML.
    """
    root = read(text, path, limits=rules.limits)
    check_tree(
        root,
        WORKFLOW_ROOT,
        findings,
        refused=frozenset() if rules.background_steps else EXPERIMENTAL_STEP_KEYS,
    )
    if rules.staged:
        findings.check()
    return root


def read_workflow(root: Node, path: str, findings: Findings) -> Workflow:
    """Return the workflow that ``root`` says, noting what is wrong beyond the schema."""
    if not isinstance(root, Mapping):
        return Workflow(path, {}, {})
    check_concurrency(root.get("concurrency"), findings)
    name = scalar_at(root, "name")
    return Workflow(
        path=path,
        triggers=read_triggers(root.get("on"), findings),
        jobs=read_jobs(root.get("jobs"), findings),
        name=name.text if name and name.value is not None else None,
        run_name=scalar_at(root, "run-name"),
        env=root.get("env"),
        defaults=read_defaults(root.get("defaults")),
    )
