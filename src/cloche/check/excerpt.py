"""The line that something is wrong in, with a caret below the place."""

from __future__ import annotations

import re
import unicodedata

_MOST_SHOWN = 100
_BEFORE = 40
_WORD = re.compile(r"[\w./${}@-]+|\S")
_TAB = "    "


def excerpt(text: str, line: int, column: int) -> str:
    """Return line ``line`` of ``text`` and a caret below ``column``, both from 1; empty if there is none.

    A long line is cut around the place, and what a terminal might act on is shown as a dot.
    """
    found = _line(text, line)
    if found is None:
        return ""
    start = max(0, column - 1 - _BEFORE) if len(found) > _MOST_SHOWN else 0
    shown = found[start : start + _MOST_SHOWN]
    before, after = shown[: column - 1 - start], shown[column - 1 - start :]
    word = _WORD.match(after)
    carets = "^" * max(_width(word[0] if word else ""), 1)
    number = str(line)
    gutter = " " * len(number)
    lead = "…" if start else ""
    indent = " " * (_width(before) + len(lead))
    return f"  {number} | {lead}{_printable(shown).rstrip()}\n  {gutter} | {indent}{carets}"


def _line(text: str, number: int) -> str | None:
    """Return one line without splitting all of a text that may be long."""
    start = 0
    for _ in range(number - 1):
        end = text.find("\n", start)
        if end < 0:
            return None
        start = end + 1
    end = text.find("\n", start)
    return text[start : end if end >= 0 else len(text)].rstrip("\r")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "·" for character in text.replace("\t", _TAB))


def _width(text: str) -> int:
    """Return how many cells of a terminal a text takes."""
    shown = _printable(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in shown
    )
