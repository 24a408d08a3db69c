"""What stands below a run on a terminal, as styled spans: table, annotations, failures, verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.report import wording
from cloche.report.text import cells, duration, fitted, padded, wrapped
from cloche.report.tree import style_of

if TYPE_CHECKING:
    from cloche.events import Annotation
    from cloche.report.summary import RunState
    from cloche.report.tree import Span
    from cloche.report.wording import Row

_TIME_WIDTH = 10
_BAR_WIDTHS = ((100, 32), (80, 20), (64, 12))
_NARROW_NAME = 12
_TAIL_LINES = 15
_SHOWN_ANNOTATIONS = 50
_LEVELS = {
    "error": ("✗", "bold red"),
    "warning": ("!", "yellow"),
    "notice": ("•", "blue"),
    "debug": ("·", "dim"),
}


def closing_table(run: RunState, columns: int) -> list[list[Span]]:
    """Give a line for each job and step: mark, name, duration and, where there is room, its time line."""
    table = wording.rows(run)
    bar = next((width for wide, width in _BAR_WIDTHS if columns >= wide), 0)
    longest = max((2 * row.depth + cells(row.name) for row in table), default=0)
    width = min(longest, max(columns - 2 - _TIME_WIDTH - (bar + 2 if bar else 0), _NARROW_NAME))
    total = max((row.start + row.duration for row in table), default=0)
    return [_row(row, width, bar, total, columns) for row in table]


def _row(row: Row, width: int, bar: int, total: float, columns: int) -> list[Span]:
    indent = "  " * row.depth
    style = style_of(row.conclusion, forgiven=row.forgiven)
    name = padded(fitted(row.name, width - len(indent)), width - len(indent))
    time = duration(row.duration) if row.timed else "" if row.earlier else row.conclusion or ""
    spans = [
        (indent, ""),
        (row.mark, style),
        (" ", ""),
    ]
    spans += [(name, "dim" if row.conclusion == "skipped" else "" if row.depth else "bold")]
    spans += [(f"{time:>{_TIME_WIDTH}}", "dim")]
    if bar and row.timed:
        spans += _bar(row, bar, total, style)
    if row.remark and row.conclusion != "skipped":
        room = columns - sum(cells(text) for text, _ in spans) - 2
        spans += [(f"  {fitted(row.remark, room)}", style)] if room > len("exit") else []
    return spans


def _bar(row: Row, width: int, total: float, style: str) -> list[Span]:
    """Draw the row's place on the run's time line of ``width`` columns."""
    scale = width / total if total else 0
    start = min(int(row.start * scale), width - 1)
    length = min(max(round(row.duration * scale), 1), width - start)
    line = ("━" if row.depth == 0 or length > 1 else "╸") * length
    return [
        ("  " + " " * start, ""),
        (line, style if row.depth else f"{style} dim"),
        (" " * (width - start - length), ""),
    ]


def annotation_list(run: RunState, columns: int) -> list[list[Span]]:
    """List everything annotated, errors first."""
    kept = wording.worst_first(run)
    lines = [line for item in kept[:_SHOWN_ANNOTATIONS] for line in annotation_lines(*item, columns=columns)]
    hidden = len(kept) - _SHOWN_ANNOTATIONS + run.dropped_annotations
    more: list[Span] = [(f"  … {hidden} more above", "dim")]
    if not lines:
        return []
    return [[(wording.annotation_tally(run), "bold")], *lines, *([more] if hidden > 0 else [])]


def annotation_lines(annotation: Annotation, count: int = 1, *, columns: int) -> list[list[Span]]:
    """Give one annotation: sign, place and message, in one line where that fits, else the message below."""
    place = wording.annotation_place(annotation)
    message = wording.annotation_message(annotation) + wording.times(count)
    return [[("  ", ""), *line] for line in signed(annotation.level, message, place, columns=columns - 2)]


def signed(level: str, message: str, place: str = "", *, columns: int) -> list[list[Span]]:
    """Give a message behind its level's sign; ``message`` is visible text of one or more lines."""
    sign, style = _LEVELS.get(level, _LEVELS["notice"])
    lines = message.split("\n")
    if len(lines) == 1 and cells(place) + cells(message) + 4 <= columns:
        return [[(sign, style), (" ", ""), (place, "bold"), ("  " if place else "", ""), (message, "")]]
    folded = [part for line in lines for part in wrapped(line, columns - 2) or [""]]
    if place:
        return [[(sign, style), (" ", ""), (place, "bold")], *([("  ", ""), (line, "")] for line in folded)]
    head: list[Span] = [(sign, style), (" ", ""), (folded[0] if folded else "", "")]
    return [head, *([("  ", ""), (line, "")] for line in folded[1:])]


def failure_lines(run: RunState, columns: int) -> list[list[Span]]:
    """Say of each failed step where it is and what it wrote last."""
    lines: list[list[Span]] = []
    for job, step in run.failed_steps():
        lines.append(
            [(wording.step_label(job, step), "bold"), (f"  {wording.step_remark(step)}", "bold red")]
        )
        lines += [
            [("  │ ", "red"), (fitted(line.expandtabs(), columns - 5), "")]
            for line in step.tail.last(_TAIL_LINES)
        ]
        lines.append([])
    return lines[:-1]


def verdict_lines(run: RunState, columns: int) -> list[list[Span]]:
    """Say how it ended, where it ran, and what to do next."""
    hint, proof = wording.next_step(run), wording.evidence(run)
    lines: list[list[Span]] = [[(wording.ending(run), f"bold {style_of(run.conclusion)}")]]
    for said, style in ((proof, "bold red" if run.strangers() else "dim"), (hint, "")):
        lines += [[("  ", ""), (line, style)] for line in wrapped(said or "", columns - 2)]
    return lines
