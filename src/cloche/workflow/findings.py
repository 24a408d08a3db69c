"""Collecting what is wrong with a file, so that one reading tells the user everything."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING

from cloche.errors import Diagnostic, WorkflowError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloche.errors import Position

_MAX_DIAGNOSTICS = 100
MAX_MESSAGE = 500
"""Characters of a message that are kept, as GitHub does."""
_MAX_WORD = 100
_MAX_WORDS = 300

# What a terminal might act on. A message quotes the file, and the file may be anyone's.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Findings:
    """The diagnostics of one file: at most 100, of at most 500 characters each, where GitHub cuts too."""

    def __init__(self) -> None:
        self._found: list[Diagnostic] = []

    def add(self, message: str, position: Position, hint: str | None = None) -> None:
        """Note one thing that is wrong."""
        if not self._full:
            self._found.append(diagnostic(message, position, hint))

    def add_unknown(self, message: str, position: Position, written: str, known: Iterable[str]) -> None:
        """Note a word that is not known, with the known word that is nearest to it as the hint."""
        if not self._full:
            self.add(message, position, _did_you_mean(written, known))

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def _full(self) -> bool:
        return len(self._found) >= _MAX_DIAGNOSTICS

    def found(self) -> tuple[Diagnostic, ...]:
        """Return everything noted so far, by position."""
        return tuple(sorted(self._found, key=lambda one: (one.position.line, one.position.column)))

    def check(self) -> None:
        """Raise WorkflowError with everything noted so far, by position, if there is anything."""
        if self._found:
            raise WorkflowError(self.found())


def diagnostic(message: str, position: Position, hint: str | None = None) -> Diagnostic:
    """Return a diagnostic whose message is short and harmless to print."""
    short = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]}[...]"
    return Diagnostic(_CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", short), position, hint)


def _did_you_mean(written: str, known: Iterable[str]) -> str | None:
    from difflib import get_close_matches  # only a wrong file pays for it

    words = list(islice(known, _MAX_WORDS + 1))
    if len(written) > _MAX_WORD or len(words) > _MAX_WORDS:  # looking for the nearest would take too long
        return None
    near = get_close_matches(written.lower(), words, n=1)
    return f"did you mean `{near[0]}`?" if near else None
