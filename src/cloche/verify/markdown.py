"""The report as Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloche.report.text import one_line
from cloche.units import format_duration
from cloche.verify.report import STATIC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.verify.report import Report, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#|!~&])")
_MAX_CELL = 600


def to_markdown(report: Report) -> str:
    """Render the report as Markdown; nothing that a guest said is markup in it."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield "# Verification: one VM for each workflow"
    yield ""
    yield f"**{_escaped(report.verdict)}**"
    yield ""
    took = format_duration(report.seconds)
    yield f"Provider {_escaped(report.seen.provider)}, {report.when}, took {took}. Every line below was measured then."
    for title, notes in (("Weaker evidence", report.weaker), ("The provider says", report.notes)):
        if notes:
            yield from ("", f"{title}:", "", *(f"- {_escaped(note)}" for note in notes))
    for table in (report.scenarios(), report.matrix()):
        yield from _table(table)
    yield from ("", _escaped(STATIC))
    for table in (report.measurements(), report.workflows(), report.timings(), report.facts()):
        yield from _table(table)
    yield from ("", "## Log", "", *(f"    {line}" for line in report.log()))


def _table(table: Table) -> Iterator[str]:
    yield from ("", f"## {table.title}", "")
    yield _row(table.columns)
    yield "|" + "---|" * len(table.columns)
    for row in table.rows:
        yield _row(tuple(_escaped(cell) for cell in row))


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Make text one line that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", one_line(text, _MAX_CELL))
