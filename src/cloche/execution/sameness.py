"""Whether a workflow is, as far as it has been carried out, what it was then: by what it says, not how it is written.

Comments, spacing, quotes and the names to show may differ; so may whatever has not begun.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from cloche.records import record
from cloche.workflow.nodes import Mapping, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from collections.abc import Sequence as SequenceOf

    from cloche.errors import Position
    from cloche.workflow.model import Job, Step, Workflow

_APART = frozenset({"id", "index", "position", "name", "steps"})
"""What a thing is known by, where it is, how it is shown, and what is looked at part by part."""
_AT_ITS_END = frozenset({"outputs", "continue_on_error", "timeout_minutes"})
"""What has no effect on a job before it ends."""

Part = tuple[str, str, int, dict[str, Any]]
"""What it is part of (``workflow``, ``job`` or ``step``), the job's id, the step's number in the file, its content."""


@record
class Change:
    """The first part that is not what it was: in words, and where it is now, if it still is.

    ``job`` and ``step`` say of which job and step, empty and 0 for what belongs to none.
    """

    what: str
    position: Position | None
    job: str = ""
    step: int = 0


def parts(workflow: Workflow, ended: Collection[str], begun: str, steps: int) -> list[Part]:
    """Return what has been carried out when jobs have ``ended``, and ``steps`` steps of the job ``begun``."""
    found: list[Part] = [
        ("workflow", "", 0, {"name": workflow.name, **_content(workflow, ("env", "defaults"))})
    ]
    for job in workflow.jobs.values():
        if job.id in ended:
            found += _of_job(job, frozenset(), len(job.steps))
        elif job.id == begun:
            found += _of_job(job, _AT_ITS_END, steps)
    return [json.loads(json.dumps(part)) for part in found]  # as it is read again


def _of_job(job: Job, later: frozenset[str], steps: int) -> Iterator[Part]:
    yield "job", job.id, 0, _content(job, _names(job, _APART | later))
    for step in job.steps[:steps]:
        yield "step", job.id, step.index, _content(step, ["id", *_names(step, _APART)])


def _names(thing: Job | Step, but: frozenset[str]) -> list[str]:
    return [field.name for field in dataclasses.fields(thing) if field.name not in but]


def first_change(before: SequenceOf[Any], workflow: Workflow) -> Change | None:
    """Return the first of the parts ``before`` that ``workflow`` does not have as they were."""
    for kind, job_id, number, content in before:
        job = workflow.jobs.get(job_id)
        if kind == "workflow":
            now = {"name": workflow.name, **_content(workflow, ("env", "defaults"))}
            if change := _difference(content, now):
                return Change(f"the workflow's `{change}`", None)
        elif job is None:
            return Change(f"job '{job_id}', which is gone", None, job_id)
        elif kind == "job":
            if change := _difference(content, _content(job, list(content))):
                return Change(f"the `{change}` of job '{job_id}'", job.position, job_id)
        elif number > len(job.steps):
            return Change(f"step {number} of job '{job_id}', which is gone", job.position, job_id, number)
        else:
            step = job.steps[number - 1]
            if change := _difference(content, _content(step, list(content))):
                what = f"the `{change}` of {_named(step)} of job '{job_id}'"
                return Change(what, step.position, job_id, number)
    return None


def _named(step: Step) -> str:
    return f"step {step.index} '{step.name.text}'" if step.name else f"step {step.index}"


def _difference(then: dict[str, Any], now: dict[str, Any]) -> str | None:
    now = json.loads(json.dumps(now))
    return next((_KEYS.get(name, name) for name in then if then[name] != now.get(name)), None)


_KEYS = {
    "condition": "if",
    "with_": "with",
    "runs_on": "runs-on",
    "working_directory": "working-directory",
    "continue_on_error": "continue-on-error",
    "timeout_minutes": "timeout-minutes",
}


def _content(thing: object, names: SequenceOf[str]) -> dict[str, Any]:
    return {name: _plain(getattr(thing, name, None)) for name in names}


def _plain(value: Any) -> Any:
    """Return what a part of a workflow says, without where it says so."""
    if isinstance(value, Scalar):
        return value.value
    if isinstance(value, Sequence | tuple):
        return [_plain(item) for item in (value.items if isinstance(value, Sequence) else value)]
    if isinstance(value, Mapping):
        return {key.text: _plain(item) for key, item in value}
    if dataclasses.is_dataclass(value):
        names = (field.name for field in dataclasses.fields(value) if field.name != "position")
        return {name: _plain(getattr(value, name)) for name in names}
    return value
