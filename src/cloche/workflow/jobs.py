"""Jobs, from checked nodes to the model, and what GitHub checks of them beyond the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.expressions.values import fold
from cloche.workflow.conditions import IMPLIED, read_condition
from cloche.workflow.definitions import JOB_CONDITION
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
    with_ = node.get("with")
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
        with_=with_ if isinstance(with_, Mapping) else None,
        secrets=node.get("secrets"),
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


def _check_needs(jobs: Mapping, findings: Findings) -> None:
    """Note needs that no job has and needs that go round in a circle, as GitHub finds them."""
    waiting = {key.text: _need_scalars(value) for key, value in jobs if isinstance(value, Mapping)}
    if not any(not needs for needs in waiting.values()):
        _note_no_start(jobs, waiting, findings)
        return
    started = _startable(waiting)
    ids = {fold(key.text): key.text for key, _ in jobs}
    for id_, needs in waiting.items():
        for need in needs:
            text = plain_text(need)
            if fold(text) not in ids:
                message = f"Job '{id_}' depends on unknown job '{text}'."
                findings.add_unknown(message, need.position, text, ids.values())
            elif id_ not in started and ids[fold(text)] not in started:
                message = (
                    f"Job '{id_}' depends on job '{text}' which creates a cycle in the dependency graph."
                )
                findings.add(message, need.position)


def _note_no_start(jobs: Mapping, waiting: dict[str, list[Scalar]], findings: Findings) -> None:
    if waiting or not jobs.entries:
        message = "The workflow must contain at least one job with no dependencies."
        findings.add(message, jobs.position, "take `needs` from the job that is to start first")


def _startable(waiting: dict[str, list[Scalar]]) -> set[str]:
    """Return the jobs whose turn comes when every job runs as soon as its needs have run."""
    missing = {id_: {fold(plain_text(need)) for need in needs} for id_, needs in waiting.items()}
    needed_by: dict[str, list[str]] = {}
    for id_, needs in missing.items():
        for need in needs:
            needed_by.setdefault(need, []).append(id_)
    ready = [id_ for id_, needs in missing.items() if not needs]
    started: set[str] = set()
    while ready:
        done = ready.pop()
        started.add(done)
        for id_ in needed_by.get(fold(done), ()):
            missing[id_].discard(fold(done))
            if not missing[id_]:
                ready.append(id_)
    return started
