"""A workflow file's text to a checked workflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.workflow.check import check_tree
from cloche.workflow.definitions import EXPERIMENTAL_STEP_KEYS, WORKFLOW_ROOT
from cloche.workflow.findings import Findings
from cloche.workflow.jobs import read_defaults, read_jobs
from cloche.workflow.model import Workflow
from cloche.workflow.nodes import Mapping
from cloche.workflow.settings import check_concurrency
from cloche.workflow.steps import scalar_at
from cloche.workflow.triggers import read_triggers
from cloche.workflow.unsupported import refuse_unsupported
from cloche.workflow.yaml import read

if TYPE_CHECKING:
    from cloche.workflow.yaml import Limits


def parse_workflow(
    text: str | bytes,
    path: str,
    *,
    allow_unsupported: bool = False,
    background_steps: bool = True,
    limits: Limits | None = None,
) -> Workflow:
    """Read and check a workflow file; ``path`` is how messages name it.

    ``allow_unsupported`` leaves out what only Cloche refuses, ``background_steps=False`` treats the keys of
    background steps as unknown, as GitHub does where they are not switched on: together they make the verdict
    GitHub's own.

    Raises WorkflowError with everything that is wrong, by position. Broken YAML ends the reading, so it comes
    alone; all else is found in one pass.
    """
    root = read(text, path, limits=limits)
    findings = Findings()
    check_tree(
        root,
        WORKFLOW_ROOT,
        findings,
        refused=frozenset() if background_steps else EXPERIMENTAL_STEP_KEYS,
        unadvertised=EXPERIMENTAL_STEP_KEYS,
    )
    workflow = _workflow(root, path, findings)
    if not allow_unsupported:
        refuse_unsupported(root, findings)
    findings.check()
    return workflow


def _workflow(root: Mapping | object, path: str, findings: Findings) -> Workflow:
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
