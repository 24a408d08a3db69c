"""Findings for people, each with the line it is in, and for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cloche.check.excerpt import excerpt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloche.check.judge import Finding, Judged

_COLOURS = {"error": "\x1b[31m", "warning": "\x1b[33m"}
_RESET = "\x1b[0m"


def as_text(judged: Sequence[Judged], *, colour: bool) -> str:
    """Return every finding with place, line, caret and hint, and a last line that sums up."""
    parts = [_finding(one, file, colour=colour) for file in judged for one in file.findings]
    return "\n".join([*parts, _summary(judged)]) + "\n"


def as_json(judged: Sequence[Judged]) -> str:
    """Return a list of files: ``{path, ok, findings: [{severity, file, line, column, message, hint}]}``."""
    files = [
        {"path": file.path, "ok": file.ok, "findings": [_fields(one) for one in file.findings]}
        for file in judged
    ]
    return json.dumps(files, indent=2, ensure_ascii=False) + "\n"


def _fields(one: Finding) -> dict[str, object]:
    place = one.diagnostic.position
    return {
        "severity": one.severity,
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "message": one.diagnostic.message,
        "hint": one.diagnostic.hint,
    }


def _finding(one: Finding, file: Judged, *, colour: bool) -> str:
    severity = f"{_COLOURS[one.severity]}{one.severity}{_RESET}" if colour else one.severity
    place = one.diagnostic.position
    lines = [f"{place}: {severity}: {one.diagnostic.message}"]
    if shown := excerpt(file.texts.get(place.file, ""), place.line, place.column):
        lines.append(shown)
    if one.diagnostic.hint:
        lines.append(f"  hint: {one.diagnostic.hint}")
    return "\n".join(lines) + "\n"


def _summary(judged: Sequence[Judged]) -> str:
    found = [one.severity for file in judged for one in file.findings]
    wrong = sum(not file.ok for file in judged)
    counts = [
        _count(found.count(severity), severity) for severity in ("error", "warning") if severity in found
    ]
    files = _count(len(judged), "file")
    if wrong:
        return f"{', '.join(counts)}: {wrong} of {files} would be refused"
    return f"{files} checked: {', '.join(counts) or 'nothing is wrong'}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
