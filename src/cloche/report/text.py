"""Text on its way to a terminal or a log.

What a guest says is hostile: ECMA-48 control sequences could move the cursor over other output, rename the
window, write the clipboard or forge links. ``visible`` lets text, newlines, tabs and, where asked, colours
(SGR) pass, and nothing else.
"""

from __future__ import annotations

import codecs
import re
import textwrap
import unicodedata

RESET = "\x1b[0m"

_CONTROLS = r"\x00-\x08\x0b-\x1f\x7f-\x9f"
_REORDERING = r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # text must not read other than it is
_SUSPECT = re.compile(f"[{_CONTROLS}{_REORDERING}]")
_SGR = re.compile(r"\x1b\[[0-9;:]{0,64}m")

# One suspect character, with what a terminal would take as its sequence. The character comes first in the
# pattern: then the engine looks for it fast, and what matched it is looked back at.
_REST = (
    # OSC, DCS and kin, up to their terminator
    r"(?:(?:(?<=\x1b)[\]PX^_]|(?<=[\x90\x98\x9d-\x9f]))[^\x07\x1b\x9c\n]*+(?:\x07|\x1b\\|\x9c)"
    r"|(?:(?<=\x1b)\[|(?<=\x9b))[0-?]*+[ -/]*+[@-~]"  # CSI
    r"|(?<=\x1b)[ -/]*+[0-~])?"  # the short escapes
)
# Compiled when first needed: most output has nothing of the kind.
_SEQUENCE = f"[{_CONTROLS}{_REORDERING}]{_REST}"
_SEQUENCE_BUT_SGR = rf"[{_CONTROLS}{_REORDERING}](?!(?<=\x1b)\[[0-9;:]{{0,64}}m){_REST}"
_BREAKS = re.compile(r"[\s\u2028\u2029]+")

_SECOND = 1000
_MINUTE = 60
_HOUR = 60 * _MINUTE

_PLAIN_SYMBOLS = str.maketrans(
    "✓✗○⊘■●▶▸▾·│…─━╸•⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏",
    "+xo-#*>>v-|~-=-*|/-\\|/-\\|/",
)


def _fall_back(error: UnicodeError) -> tuple[str, int]:
    """Say a symbol that an encoding lacks with one of ASCII, of the same width."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end].translate(_PLAIN_SYMBOLS)
    return "".join(character if character.isascii() else "?" for character in lost), error.end


SYMBOL_ERRORS = "cloche.symbols"
"""The codec error handler for output: what the encoding lacks becomes ASCII, surrogates become ``?``."""

codecs.register_error(SYMBOL_ERRORS, _fall_back)


def visible(text: str, *, colour: bool = False) -> str:
    """Let text, newlines and tabs pass and nothing else; with ``colour`` SGR too, reset at each line's end.

    Of a line that overwrites itself with carriage returns (progress bars) the last state stays, as on a
    terminal. Takes time linear in the text's length.
    """
    if not _SUSPECT.search(text):
        return text
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    if not colour:
        return re.sub(_SEQUENCE, "", text)
    text = re.sub(_SEQUENCE_BUT_SGR, "", text)
    if "\x1b" not in text:
        return text
    return "\n".join(line + RESET if "\x1b" in line else line for line in text.split("\n"))


def without_colour(text: str) -> str:
    """Take the SGR sequences out of ``visible`` text."""
    return _SGR.sub("", text)


def one_line(text: str, limit: int = 200) -> str:
    """Make a name or title one visible line of at most ``limit`` characters."""
    line = _BREAKS.sub(" ", visible(text[: limit * 8])).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def lines_of(text: str, *, limit: int) -> list[str]:
    """Give the visible lines of ``text``, the first ``limit`` of them."""
    lines = visible(text).rstrip("\n").split("\n")
    return lines if len(lines) <= limit else [*lines[:limit], f"… {len(lines) - limit} more lines"]


def indented(text: str, prefix: str) -> str:
    """Put ``prefix`` before each line; a missing newline at the end is added."""
    body = text.removesuffix("\n").replace("\n", "\n" + prefix)
    return f"{prefix}{body}\n"


def duration(milliseconds: float) -> str:
    """Say a duration as people do: ``87 ms``, ``8.1 s``, ``2 m 05 s``, ``1 h 02 m``."""
    milliseconds = max(milliseconds, 0)
    if round(milliseconds) < _SECOND:
        return f"{milliseconds:.0f} ms"
    if milliseconds < _MINUTE * _SECOND - 50:
        return f"{milliseconds / _SECOND:.1f} s"
    seconds = round(milliseconds / _SECOND)
    if seconds < _HOUR:
        return f"{seconds // _MINUTE} m {seconds % _MINUTE:02} s"
    return f"{seconds // _HOUR} h {seconds % _HOUR // _MINUTE:02} m"


def elapsed(seconds: float) -> str:
    """Say how long something runs, calm enough to watch: in whole seconds."""
    whole = int(max(seconds, 0))
    return f"{whole} s" if whole < _MINUTE else duration(whole * _SECOND)


def counted(number: int, noun: str) -> str:
    """Count things: ``1 step``, ``2 steps``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def cells(text: str) -> int:
    """Count the columns of one visible line: wide East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def padded(text: str, width: int) -> str:
    """Fill ``text`` up with spaces to ``width`` columns."""
    return text + " " * (width - cells(text))


def fitted(text: str, width: int) -> str:
    """Cut one visible line to at most ``width`` columns, with an ellipsis where something is missing."""
    if cells(text) <= width:
        return text
    room, kept = width - 1, 0
    for kept, character in enumerate(text):  # noqa: B007 - where the room ended is what we want
        room -= _cells_of(character)
        if room < 0:
            break
    return text[:kept] + "…" if width > 0 else ""


def elided(text: str, width: int) -> str:
    """Cut one visible line in the middle: names in a column differ at their ends."""
    if cells(text) <= width:
        return text
    head = fitted(text, max(width // 3, 1) + 1).removesuffix("…")
    tail = fitted(text[::-1], width - cells(head)).removesuffix("…")[::-1]
    return f"{head}…{tail}"


def wrapped(text: str, width: int) -> list[str]:
    """Break prose between words into lines of at most ``width`` characters; a longer word stays whole."""
    return textwrap.wrap(text, max(width, 10), break_long_words=False, break_on_hyphens=False)
