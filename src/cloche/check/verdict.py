"""GitHub's verdict on one file, in the shape that GitHub's own parsers give it: errors, jobs and template."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloche.errors import WorkflowError
from cloche.records import record
from cloche.workflow.action import read_action
from cloche.workflow.findings import MAX_MESSAGE
from cloche.workflow.nodes import Mapping, Scalar
from cloche.workflow.parse import Rules
from cloche.workflow.reusable import FROM_CALLED, CallError, CallRules, RefusedError, read_unit
from cloche.workflow.step_ids import step_ids
from cloche.workflow.template import template_of
from cloche.workflow.templates import OPEN, plain_text
from cloche.workflow.yaml import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping as MappingOf

    from cloche.errors import Diagnostic
    from cloche.workflow.model import Job
    from cloche.workflow.nodes import Node
    from cloche.workflow.reusable import FileSource, Unit

ACTION_FILES = frozenset({"action.yml", "action.yaml"})
# What GitHub finds while it reads, before it keeps places: it names the file only.
_WITHOUT_PLACE = (
    "Maximum object depth exceeded",
    "Maximum object size exceeded",
    "Maximum YAML nodes exceeded",
    "The maximum file size of ",
    "The scalar style '",
    "Unexpected tag '",
)
_LARGEST_TEMPLATE = 1024 * 1024
"""Characters of a workflow with all it calls; the template of more would take too much memory."""
_MOST_CHARACTERS = 4 * 1024 * 1024
_MOST_LEVELS = 100
_MOST_FILES = 1000
_WRONG_TYPE = re.compile(r"The value '.*' on line \d+ and column \d+ is invalid for the type ", re.DOTALL)


@record
class Options:
    """How a file is judged: GitHub's limits and policies, and what the template shows."""

    rules: Rules = Rules(background_steps=False, staged=True)
    calls: CallRules = CallRules()
    include_source: bool = False
    template: bool = True


def read_options(
    options: MappingOf[str, Any], features: MappingOf[str, Any], *, template: bool = True
) -> Options:
    """Return what a row of GitHub's own test data asks for; options that are not known mean nothing."""
    limits, calls = Limits(), CallRules()
    return Options(
        rules=Rules(
            limits=Limits(
                characters=_number(options, "max-file-size", limits.characters, _MOST_CHARACTERS),
                depth=_number(options, "max-depth", limits.depth, _MOST_LEVELS),
                size=_number(options, "max-result-size", limits.size, limits.size),
            ),
            background_steps=features.get("allowBackgroundSteps", features.get("all")) is True,
            staged=True,
        ),
        calls=CallRules(
            depth=_number(options, "max-nested-reusable-workflows-depth", calls.depth, _MOST_LEVELS),
            files=_number(options, "max-files", calls.files, _MOST_FILES),
            jobs=_number(options, "max-job-limit", calls.jobs, _MOST_CHARACTERS),
            policy="LimitedRead" if options.get("permissions-policy") == "LimitedRead" else "Write",
        ),
        include_source=options.get("include-source") is True,
        template=template,
    )


def _number(options: MappingOf[str, Any], key: str, otherwise: int, most: int) -> int:
    """Return a limit that a row sets, at most what this process can bear."""
    value = options.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        return otherwise
    return min(value, most)


def verdict(text: str | bytes, name: str, files: FileSource | None, options: Options) -> dict[str, Any]:
    """Return the verdict on a workflow: ``ok``, ``errors``, ``jobs`` and, if asked for, ``template``.

    ``files`` gives the files that it calls; ``None`` leaves calls alone. A workflow that the schema takes has its
    jobs listed though it is refused, as GitHub's parser has it.
    """
    try:
        unit = read_unit(text, name, files, options.rules, options.calls)
    except WorkflowError as error:
        errors = _errors(error)
        read = error.unit if isinstance(error, RefusedError) else None
        failed = {"ok": False, "errors": errors, "jobs": _jobs(read) if read else []}
        shown = {"errors": [{"Message": one} for one in errors]}
        return failed | ({"template": shown} if options.template else {})
    judged = {"ok": True, "errors": [], "jobs": _jobs(unit)}
    if options.template:
        fits = unit.size <= _LARGEST_TEMPLATE
        judged["template"] = template_of(unit, include_source=options.include_source) if fits else None
    return judged


def action_verdict(text: str | bytes, name: str, options: Options) -> dict[str, Any]:
    """Return the verdict on an ``action.yml``: ``ok``, ``errors``, what runs it and how many inputs it has."""
    try:
        action = read_action(text, name, limits=options.rules.limits)
    except WorkflowError as error:
        return {"ok": False, "errors": _errors(error), "jobs": []}
    return {"ok": True, "errors": [], "jobs": [], "using": action.using, "inputs": len(action.inputs)}


def github_text(one: Diagnostic) -> str:
    """Return a diagnostic as GitHub writes it: ``file (Line: 1, Col: 2): text``."""
    place = one.position
    if one.message.startswith(_WITHOUT_PLACE) or _WRONG_TYPE.match(one.message):
        return _cut(f"{place.file}: {one.message}")
    text = _cut(f"{place.file} (Line: {place.line}, Col: {place.column}): {one.message}")
    return f"In {text}" if one.message.startswith(FROM_CALLED) else text


def _cut(text: str) -> str:
    """Cut as GitHub does, with the place; the message alone is cut already, no shorter than this."""
    return text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}[...]"


def _errors(error: WorkflowError) -> list[str]:
    if isinstance(error, CallError) and error.unplaced:
        return [one.message for one in error.diagnostics]
    return [github_text(one) for one in error.diagnostics]


def _jobs(unit: Unit) -> list[dict[str, Any]]:
    jobs = unit.root.get("jobs")
    nodes = dict(jobs.entries) if isinstance(jobs, Mapping) else {}
    by_id = {key.text: node for key, node in nodes.items()}
    return [_job(job, by_id[id_]) for id_, job in unit.workflow.jobs.items()]


def _job(job: Job, node: Node) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": job.id,
        "type": "reusableWorkflowJob" if job.uses else "job",
        "needs": list(job.needs),
        "steps": len(job.steps),
    }
    if job.uses:
        shown["uses"] = plain_text(job.uses)
    elif isinstance(node, Mapping):
        shown["step_ids"] = step_ids(node.get("steps"))
    return shown | {
        "if": job.condition.expression,
        "matrix": _matrix(job),
        "container": isinstance(node, Mapping) and node.get("container") is not None,
        "services": isinstance(node, Mapping) and node.get("services") is not None,
    }


def _matrix(job: Job) -> list[str] | str | None:
    matrix = job.strategy.matrix if job.strategy else None
    if isinstance(matrix, Scalar):
        return "expression" if OPEN in matrix.text else None
    return [key.text for key, _ in matrix] if isinstance(matrix, Mapping) else None
