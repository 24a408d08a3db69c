"""The live tree of what runs now, as styled spans; it fits whatever rows and columns there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.records import record
from cloche.report import wording
from cloche.report.text import cells, counted, duration, elapsed, fitted, one_line, padded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cloche.events import Conclusion
    from cloche.report.summary import JobState, RunState, StepState, Summary

Span = tuple[str, str]
"""A piece of text and the name of its style."""

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAMES_PER_SECOND = 8
_TIME_WIDTH = 9
_MARGIN = 3  # the mark, a space, and one column free at the end
_CALM_WIDTH = 44  # names of usual length do not make the times jump
_NARROWEST = 4
_INDENT = 2

STYLES = {"success": "green", "failure": "bold red", "skipped": "dim", "cancelled": "yellow"}


def style_of(conclusion: Conclusion | None, *, forgiven: bool = False) -> str:
    """Choose the style of an ending's mark."""
    if forgiven:
        return "yellow"
    return STYLES[conclusion] if conclusion else "cyan"


@record
class _Row:
    """A line of the tree. ``rank`` says how early it is given up when rows are scarce: the lowest stays."""

    depth: int
    mark: Span
    name: Span
    time: str
    rank: int


_ROOT, _RUNNING, _FAILED, _TAIL, _WAITING, _DONE, _PAST_STEP = range(7)


def live_tree(summary: Summary, now: float, columns: int, budget: int) -> list[list[Span]]:
    """Show the active runs, their jobs, and the steps of running jobs, in at most ``budget`` lines.

    ``now`` is seconds since the epoch.
    """
    rows = [row for run in summary.active() for row in _run_rows(run, now)]
    rows, hidden = _within(rows, budget)
    named = (_INDENT * row.depth + cells(row.name[0]) for row in rows if row.rank != _TAIL)
    width = min(max([_CALM_WIDTH, *named]), max(columns - _MARGIN - _TIME_WIDTH, _NARROWEST))
    lines = [_line(row, width) for row in rows]
    return [*lines, [(f"  … {hidden} more", "dim")]] if hidden else lines


def _within(rows: Sequence[_Row], budget: int) -> tuple[list[_Row], int]:
    """Give up rows of the highest rank until the rest fits, the line that counts them included."""
    if len(rows) <= budget:
        return list(rows), 0
    keep = sorted(range(len(rows)), key=lambda index: (rows[index].rank, index))[: max(budget - 1, 1)]
    return [rows[index] for index in sorted(keep)], len(rows) - len(keep)


def _line(row: _Row, width: int) -> list[Span]:
    indent = " " * (_INDENT * row.depth)
    name = padded(fitted(row.name[0], width - len(indent)), width - len(indent))
    return [(indent, ""), row.mark, (" ", ""), (name, row.name[1]), (f"{row.time:>{_TIME_WIDTH}}", "dim")]


def _run_rows(run: RunState, now: float) -> Iterator[_Row]:
    spinner = _FRAMES[int(now * FRAMES_PER_SECOND) % len(_FRAMES)]
    jobs = run.ordered()
    done = sum(1 for job in jobs if job.conclusion)
    facts = [run.workflow, f"{done} of {counted(len(jobs), 'job')} done"]
    if run.waiting:
        facts.append(wording.waiting(run.waiting))
    if run.session:
        facts.append(one_line(run.session.vm_id))
    name = " · ".join(facts)
    yield _Row(0, (spinner, "cyan"), (name, "bold"), elapsed(now - run.started_at), _ROOT)
    for job in jobs:
        yield from _job_rows(job, spinner, now)


def _job_rows(job: JobState, spinner: str, now: float) -> Iterator[_Row]:
    if job.conclusion:
        rank = _FAILED if job.conclusion == "failure" else _DONE
        mark = wording.mark(job), style_of(job.conclusion)
        time = "skipped" if job.conclusion == "skipped" else duration(job.duration_ms)
        time = "before" if job.earlier else time
        yield _Row(1, mark, (job.name, ""), time, rank)
    elif job.started_at is None:
        yield _Row(1, (wording.WAITING, "dim"), (job.name, "dim"), "", _WAITING)
    else:
        yield _Row(1, (spinner, "cyan"), (job.name, "bold"), elapsed(now - job.started_at), _RUNNING)
        for number in sorted(job.steps):
            yield from _step_rows(job.steps[number], spinner, now)
        if job.planned > len(job.steps):
            rest = counted(job.planned - len(job.steps), "more step")
            yield _Row(2, (wording.WAITING, "dim"), (rest, "dim"), "", _PAST_STEP)


def _step_rows(step: StepState, spinner: str, now: float) -> Iterator[_Row]:
    if step.conclusion:
        mark = wording.mark(step), style_of(step.conclusion, forgiven=step.forgiven)
        time = "skipped" if step.conclusion == "skipped" else duration(step.duration_ms)
        yield _Row(2, mark, (step.name, ""), time, _PAST_STEP)
        return
    yield _Row(2, (spinner, "cyan"), (step.name, ""), elapsed(now - step.started_at), _RUNNING)
    if step.group is not None:
        title = (
            f"{one_line(step.group)} · {counted(step.group_lines, 'line')}"
            if step.group_lines
            else one_line(step.group)
        )
        yield _Row(3, (wording.FOLDED, "dim"), (title, "dim"), "", _TAIL)
        last = step.tail.last(1)
        if last and step.group_lines:
            yield _Row(4, (" ", ""), (one_line(last[0]), "dim"), "", _TAIL)
