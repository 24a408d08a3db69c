"""Jobs, from checked nodes to the model, and what GitHub checks of them beyond the schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloche.expressions.values import fold
from cloche.workflow.conditions import IMPLIED, read_condition
from cloche.workflow.definitions import JOB_CONDITION
from cloche.workflow.findings import did_you_mean
from cloche.workflow.identifiers import Identifiers
from cloche.workflow.model import Condition, Job, RunDefaults, Strategy
from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.settings import check_settings
from cloche.workflow.steps import read_steps, scalar_at
from cloche.workflow.strategy import check_strategy
from cloche.workflow.templates import plain_text

if TYPE_CHECKING:
    from cloche.workflow.findings import Findings
    from cloche.workflow.nodes import Node


def read_jobs(node: Node | None, findings: Findings) -> dict[str, Job]:
    """Read all jobs, by id, in file order. Notes bad ids, conditions, matrices, steps and needs."""
    if not isinstance(node, Mapping):
        return {}
    spelling = {fold(key.text): key.text for key, _ in node}
    schema_passed = not findings
    jobs = {}
    for key, value in node:
        if not isinstance(value, Mapping) or key.text in jobs:
            continue
        jobs[key.text] = _job(key, value, spelling, findings)
        if schema_passed:  # settings that the schema refused would only be reported twice
            check_settings(value, findings)
    _check_needs(node, findings)
    return jobs


def read_defaults(node: Node | None) -> RunDefaults:
    """Read ``defaults``."""
    run = node.get("run") if isinstance(node, Mapping) else None
    if not isinstance(run, Mapping):
        return RunDefaults()
    return RunDefaults(scalar_at(run, "shell"), scalar_at(run, "working-directory"))


def _job(key: Scalar, node: Mapping, spelling: dict[str, str], findings: Findings) -> Job:
    if key.text and (problem := Identifiers().add(key.text)):  # an empty id the schema has refused
        findings.add(problem, key.position)
    check_strategy(node.get("strategy"), key.text, findings)
    outputs = node.get("outputs")
    uses = scalar_at(node, "uses")
    return Job(
        id=key.text,
        position=key.position,
        condition=_condition(key, node, findings),
        runs_on=node.get("runs-on") or Sequence((), key.position),
        steps=read_steps(node.get("steps"), findings),
        name=scalar_at(node, "name"),
        needs=_needs(node, spelling),
        env=node.get("env"),
        defaults=read_defaults(node.get("defaults")),
        outputs=outputs if isinstance(outputs, Mapping) else None,
        strategy=_strategy(node.get("strategy")),
        continue_on_error=scalar_at(node, "continue-on-error"),
        timeout_minutes=scalar_at(node, "timeout-minutes"),
        uses=uses,
    )


def _condition(key: Scalar, node: Mapping, findings: Findings) -> Condition:
    written = scalar_at(node, "if")
    return read_condition(written, JOB_CONDITION, findings) if written else Condition(IMPLIED, key.position)


def _strategy(node: Node | None) -> Strategy | None:
    if not isinstance(node, Mapping):
        return None
    return Strategy(node.get("matrix"), scalar_at(node, "fail-fast"), scalar_at(node, "max-parallel"))


def _need_scalars(node: Mapping) -> list[Scalar]:
    needs = node.get("needs")
    items = needs.items if isinstance(needs, Sequence) else (needs,)
    return [item for item in items if isinstance(item, Scalar) and plain_text(item)]


def _needs(node: Mapping, spelling: dict[str, str]) -> tuple[str, ...]:
    """Return the needs, each once, spelled as the needed job's id is: case does not count in them."""
    texts = [plain_text(need) for need in _need_scalars(node)]
    return tuple(dict.fromkeys(spelling.get(fold(text), text) for text in texts))


@dataclass(slots=True)
class _Waiting:
    """A job and those of its needs that have not been met."""

    id: str
    needs: list[Scalar]


def _check_needs(jobs: Mapping, findings: Findings) -> None:
    """Note needs that no job has and needs that go round in a circle, as GitHub finds them."""
    waiting = [
        _Waiting(key.text, _need_scalars(value)) if isinstance(value, Mapping) else _Waiting(key.text, [])
        for key, value in jobs
    ]
    ready = [job.id for job in waiting if not job.needs]
    if not ready:
        hint = "let one of the jobs start without `needs`"
        message = "The workflow must contain at least one job with no dependencies."
        findings.add(message, jobs.position, hint if jobs.entries else None)
        return
    waiting = [job for job in waiting if job.needs]
    while ready:
        done = fold(ready.pop())
        for job in waiting:
            job.needs = [need for need in job.needs if fold(plain_text(need)) != done]
        ready += [job.id for job in waiting if not job.needs]
        waiting = [job for job in waiting if job.needs]
    ids = {fold(key.text): key.text for key, _ in jobs}
    for job in waiting:
        for need in job.needs:
            _note_unmet(job.id, need, ids, findings)


def _note_unmet(job: str, need: Scalar, ids: dict[str, str], findings: Findings) -> None:
    text = plain_text(need)
    if fold(text) in ids:
        message = f"Job '{job}' depends on job '{text}' which creates a cycle in the dependency graph."
        findings.add(message, need.position)
    else:
        message = f"Job '{job}' depends on unknown job '{text}'."
        findings.add(message, need.position, did_you_mean(text, ids.values()))
