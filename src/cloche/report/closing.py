"""What stands below a run in plain text: table, summaries, annotations, failures, verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.report import wording
from cloche.report.text import cells, duration, lines_of, padded

if TYPE_CHECKING:
    from cloche.report.summary import RunState

_NAME_WIDTH = 60
_SUMMARY_LINES = 200
_TAIL_LINES = 20
_SHOWN_ANNOTATIONS = 100


def closing(run: RunState, *, named: bool = False) -> str:
    """Write what stands below a run: table, summaries, annotations, last lines of failed steps, verdict."""
    title = f"{run.workflow}\n" if named else ""
    parts = [title + _table(run), *_step_summaries(run), annotation_lines(run), *failures(run), verdict(run)]
    return "".join(f"\n{part}" for part in parts if part)


def _table(run: RunState) -> str:
    table = [(f"{'  ' * row.depth}{row.mark} {row.name}", row) for row in wording.rows(run)]
    width = max((min(cells(name), _NAME_WIDTH) for name, _ in table), default=0)
    lines = []
    for name, row in table:
        took = duration(row.duration) if row.timed else ""
        line = f"{padded(_cut(name), width)}  {took:>8}  {row.remark}"
        lines.append(line.rstrip() + "\n")
    return "".join(lines)


def _cut(name: str) -> str:
    return name if cells(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 1] + "…"


def _step_summaries(run: RunState) -> list[str]:
    with_summary = [(job, step) for job, step in run.steps() if step.markdown.strip()]
    return [
        f"Summary of {wording.step_label(job, step)}\n{_summary(step.markdown)}" for job, step in with_summary
    ]


def _summary(markdown: str) -> str:
    from cloche.report.markdown import from_html  # few runs have summaries

    return _block(lines_of(from_html(markdown), limit=_SUMMARY_LINES))


def annotation_lines(run: RunState) -> str:
    """List everything annotated, how much of what first; empty if there is nothing."""
    shown = [wording.annotation_text(annotation, count) for annotation, count in wording.worst_first(run)]
    if not shown:
        return ""
    more = len(shown) - _SHOWN_ANNOTATIONS
    rest = [f"… {more} more above"] if more > 0 else []
    return f"{wording.annotation_tally(run)}\n{_block([*shown[:_SHOWN_ANNOTATIONS], *rest])}"


def failures(run: RunState) -> list[str]:
    """Say of each failed step where it is and what it wrote last."""
    return [
        f"{wording.step_label(job, step)}: {wording.step_remark(step)}\n"
        f"{_block(step.tail.last(_TAIL_LINES), '  │ ')}"
        for job, step in run.failed_steps()
    ]


def verdict(run: RunState) -> str:
    """Say how it ended, where it ran, and what to do next."""
    hint = wording.next_step(run)
    lines = [wording.evidence(run), wording.ending(run), f"  {hint}" if hint else None]
    return "".join(f"{line}\n" for line in lines if line)


def _block(lines: list[str], prefix: str = "  ") -> str:
    return "".join(f"{prefix}{line}".rstrip() + "\n" for text in lines for line in text.split("\n"))
