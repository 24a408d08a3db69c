"""The report as a page: one file, nothing to fetch, readable on paper and in the dark."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from cloche.report.text import one_line
from cloche.units import format_duration
from cloche.verify.report import STATIC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.verify.report import Report, Table

_MAX_CELL = 1000
_GOOD, _BAD = {"passed", "holds", "good"}, {"FAILED", "FAILS", "BAD"}
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1a7f37; --bad: #cf222e; --soft: #8882 }
@media (prefers-color-scheme: dark) { :root { --good: #4ac26b; --bad: #ff7b72 } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: .5rem }
h2 { font-size: 1.15rem; margin-top: 2.2rem }
.verdict { border-left: .4rem solid; padding: .7rem 1rem; font-size: 1.1rem; font-weight: 600; background: var(--soft) }
.good { color: var(--good) } .bad { color: var(--bad); font-weight: 600 }
.scroll { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line) }
th { font-weight: 600; white-space: nowrap } td { overflow-wrap: anywhere; min-width: 3.5rem }
pre { background: var(--soft); padding: 1rem; overflow-x: auto; font-size: 13px; line-height: 1.45 }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def to_html(report: Report) -> str:
    """Render the report as an HTML document; nothing that a guest said is markup in it."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    kind = "good" if report.passed else "bad"
    yield "<!DOCTYPE html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">'
    yield f"<title>Cloche verification, {escape(report.when)}</title><style>{_STYLE}</style></head><body>"
    yield "<h1>One VM for each workflow</h1>"
    yield f'<p class="verdict {kind}">{_shown(report.verdict)}</p>'
    took = format_duration(report.seconds)
    yield f"<p>Provider {_shown(report.seen.provider)}, {escape(report.when)}, took {took}."
    yield "Every line below was measured then.</p>"
    for title, notes in (("Weaker evidence", report.weaker), ("The provider says", report.notes)):
        if notes:
            yield f"<p>{title}:</p><ul>{''.join(f'<li>{_shown(note)}</li>' for note in notes)}</ul>"
    for table in (report.scenarios(), report.matrix()):
        yield from _table(table)
    yield f"<p>{escape(STATIC)}</p>"
    for table in (report.measurements(), report.workflows(), report.timings(), report.facts()):
        yield from _table(table)
    yield f"<h2>Log</h2><pre>{chr(10).join(map(_shown, report.log()))}</pre>"
    yield "</body></html>"


def _table(table: Table) -> Iterator[str]:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    yield f'<h2>{escape(table.title)}</h2><div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>'
    for row in table.rows:
        yield f"<tr>{''.join(map(_cell, row))}</tr>"
    yield "</tbody></table></div>"


def _cell(text: str) -> str:
    kind = ' class="good"' if text in _GOOD else ' class="bad"' if text in _BAD else ""
    return f"<td{kind}>{_shown(text)}</td>"


def _shown(text: str) -> str:
    """Make text one line without control characters, and none of it markup."""
    return escape(one_line(text, _MAX_CELL))
