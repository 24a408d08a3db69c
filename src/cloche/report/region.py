"""The live lines at the foot of a terminal, and what scrolls by above them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import terminal_size

    from cloche.report.sink import Sink

_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"  # our idea of a character's width need not be the terminal's
_BEGIN_FRAME, _END_FRAME = "\x1b[?2026h", "\x1b[?2026l"  # synchronised update: no flicker where it is known


@record
class Line:
    """A live line, ready for the terminal, and the columns it takes."""

    text: str
    width: int


class Region:
    """Keeps ``Line``s as the last ones of the terminal. Every change is a single write."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lines: Sequence[Line] = ()
        self._columns = 1

    def update(self, above: str, lines: Sequence[Line] | None, size: terminal_size) -> None:
        """Let ``above`` (whole lines) scroll by and show ``lines``, or with ``None`` those already there."""
        lines = self._lines if lines is None else lines
        if not above and list(lines) == list(self._lines):
            return
        shown = "".join(f"{line.text}\n" for line in lines)
        frame = [self._erase(size), above, f"{_NO_WRAP}{shown}{_WRAP}" if lines else ""]
        cursor = (_HIDE_CURSOR if lines else "") if not self._lines else ("" if lines else _SHOW_CURSOR)
        self._sink.write(f"{_BEGIN_FRAME}{''.join(frame)}{cursor}{_END_FRAME}")
        self._lines, self._columns = tuple(lines), size.columns

    def _erase(self, size: terminal_size) -> str:
        """Go back to where the lines began, counting what a narrower terminal folded since.

        A line too wide when it was drawn was clipped then, and took one row.
        """
        rows = sum(max(1, -(-min(line.width, self._columns) // size.columns)) for line in self._lines)
        rows = min(rows, size.lines - 1)
        return f"\r\x1b[{rows}A\x1b[J" if rows > 0 else ""
