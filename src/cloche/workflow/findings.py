"""Collecting what is wrong with a file, so that one reading tells the user everything."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from cloche.errors import Diagnostic, WorkflowError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloche.errors import Position

_MAX_DIAGNOSTICS = 100
_MAX_MESSAGE = 500


class Findings:
    """The diagnostics of one file: at most 100, of at most 500 characters each, where GitHub cuts too."""

    def __init__(self) -> None:
        self._found: list[Diagnostic] = []

    def add(self, message: str, position: Position, hint: str | None = None) -> None:
        """Note one thing that is wrong."""
        if len(self._found) < _MAX_DIAGNOSTICS:
            short = message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}[...]"
            self._found.append(Diagnostic(short, position, hint))

    def __bool__(self) -> bool:
        return bool(self._found)

    def check(self) -> None:
        """Raise WorkflowError with everything noted so far, by position, if there is anything."""
        if self._found:
            by_position = sorted(self._found, key=lambda one: (one.position.line, one.position.column))
            raise WorkflowError(tuple(by_position))


def did_you_mean(written: str, known: Iterable[str]) -> str | None:
    """Return a hint with the known word that is nearest to ``written``, if one is near."""
    if len(written) > _MAX_MESSAGE:
        return None
    near = difflib.get_close_matches(written.lower(), list(known), n=1)
    return f"did you mean `{near[0]}`?" if near else None
