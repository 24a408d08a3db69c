"""JSON as GitHub writes it and reads it.

The runner reads with Newtonsoft.Json, which takes more than the standard: single quotes, names without
quotes, comments, a comma too many, octal and hexadecimal numbers, and anything at all after the value.
Workflows lean on that (a Python list printed into an output is a matrix), so it is read here too.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from typing import TYPE_CHECKING

from cloche.expressions.budget import ITEM, MAX_MEMORY, size
from cloche.expressions.values import (
    WHITE_SPACE,
    fold,
    is_array,
    is_object,
    kind,
    parse_number,
    to_string,
)
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cloche.expressions.budget import Meter
    from cloche.expressions.values import Value

MAX_NESTING = 64
"""Arrays and objects inside each other; the runner's reader stops there too."""
MAX_VALUES = MAX_MEMORY // ITEM
"""Values in one text, as many as the memory of an evaluation may hold."""


class JsonError(ValueError):
    """Raised when a text is not JSON, not even as the runner reads it, or passes a limit."""


def write_json(value: Value, meter: Meter) -> str:
    """Return ``value`` as toJSON() prints it: two spaces a level, numbers as ``${{ }}`` prints them."""
    pieces = []
    for piece in _pieces(value):
        meter.add(size(piece))
        pieces.append(piece)
    return "".join(pieces)


@record(frozen=False)
class _Level:
    opening: str
    closing: str
    entries: Iterator[tuple[str, Value]]
    separator: str = ""


def _pieces(value: Value) -> Iterator[str]:
    levels: list[_Level] = []
    while True:
        level = _level(value)
        if level is None:
            yield _scalar(value)
        else:
            yield level.opening
            levels.append(level)
        entry = None
        while levels and (entry := next(levels[-1].entries, None)) is None:
            closing = levels.pop().closing
            yield f"\n{'  ' * len(levels)}{closing}"
        if entry is None:
            return
        label, value = entry
        yield f"{levels[-1].separator}\n{'  ' * len(levels)}{label}"
        levels[-1].separator = ","


def _level(value: Value) -> _Level | None:
    """Return how to write the collection ``value``, ``None`` if it is none or is empty."""
    if is_object(value) and value:
        return _Level("{", "}", ((f"{_quote(name)}: ", item) for name, item in value.items()))
    if is_array(value) and value:
        return _Level("[", "]", (("", item) for item in value))
    return None


def _scalar(value: Value) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return _quote(value)
    return {"Object": "{}", "Array": "[]"}.get(kind(value)) or to_string(value)


def _quote(text: str) -> str:
    quoted = json.dumps(text, ensure_ascii=False)
    # The three line ends that JSON lets pass and the runner escapes.
    return quoted.replace("\x85", "\\u0085").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def read_json(text: str) -> Value:
    """Return the value that ``text`` begins with, every number a float.

    Of names that differ in case only the first spelling and the last value stay, as in the runner.
    Raises JsonError.
    """
    if sum(map(text.count, ",[{")) > MAX_VALUES:
        raise JsonError(f"it holds more than {MAX_VALUES} values")
    if not (_LONE_SURROGATE.search(text) or _nests_too_deep(text)):
        with contextlib.suppress(json.JSONDecodeError):
            return _STANDARD.decode(text)  # type: ignore[no-any-return] # what a decoder returns is Any
    return _LenientReader(text).read()


def _merged(pairs: Iterable[tuple[str, Value]]) -> dict[str, Value]:
    entries = dict(pairs)
    folded = {fold(name) for name in entries}
    if len(folded) == len(entries):
        return entries
    first_names: dict[str, str] = {}
    return {first_names.setdefault(fold(name), name): value for name, value in entries.items()}


_STANDARD = json.JSONDecoder(parse_int=float, strict=False, object_pairs_hook=_merged)
# An escaped half of a surrogate pair; only the lenient reader checks for the other half.
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_STRUCTURE = re.compile(r'"(?:[^"\\]++|\\.)*"|[\[\]{}]', re.DOTALL)


def _nests_too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_NESTING:
        return False
    depth = 0
    for match in _STRUCTURE.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if depth > MAX_NESTING:
            return True
    return False


_END_OF_WORD = rf"(?=[,}}\])/{WHITE_SPACE}]|\Z)"
_BLANK = re.compile(rf"(?:[{WHITE_SPACE}]++|/\*.*?\*/|//[^\r\n]*+)*", re.DOTALL)
_WORD = re.compile(rf"(?:true|false|null|undefined|NaN|-?Infinity){_END_OF_WORD}")
_NUMBER = re.compile(rf"[-.0-9][-+a-fA-FxX.0-9]*+{_END_OF_WORD}")
_STRING = re.compile(r"""(?P<quote>["'])(?:[^"'\\]++|\\.|(?!(?P=quote))["'])*(?P=quote)""", re.DOTALL)
_ESCAPE = re.compile(r"((?:\\u[0-9a-fA-F]{4})+)|\\(.)", re.DOTALL)
_NAME = re.compile(r"[\w$]++")

_WORDS: dict[str, Value] = {
    "true": True,
    "false": False,
    "null": None,
    "undefined": "",
    "NaN": math.nan,
    "Infinity": math.inf,
    "-Infinity": -math.inf,
}
_ESCAPES = {
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "\\": "\\",
    "/": "/",
    '"': '"',
    "'": "'",
}


class _LenientReader:
    """Reads what the standard reader refuses. Its recursion ends at MAX_NESTING."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._offset = 0
        self._nesting = 0

    def read(self) -> Value:
        return self._value()

    def _error(self, problem: str) -> JsonError:
        line = self._text.count("\n", 0, self._offset) + 1
        column = self._offset - self._text.rfind("\n", 0, self._offset)
        return JsonError(f"{problem}, line {line}, position {column}")

    def _peek(self) -> str:
        """Skip white space and comments; return the character there, empty at the end."""
        self._take(_BLANK)
        return self._text[self._offset : self._offset + 1]

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._text, self._offset)
        if match is None:
            return None
        self._offset = match.end()
        return match[0]

    def _value(self) -> Value:
        match self._peek():
            case "[":
                return self._array()
            case "{":
                return self._object()
            case '"' | "'":
                return self._string()
        word = self._take(_WORD)
        if word is not None:
            return _WORDS[word]
        number = self._take(_NUMBER)
        if number is None:
            raise self._unexpected()
        return self._number(number)

    def _array(self) -> list[Value]:
        items = []
        self._enter()
        while self._peek() != "]":
            items.append(self._item())
            self._separator("]")
        self._leave()
        return items

    def _object(self) -> dict[str, Value]:
        pairs = []
        self._enter()
        while self._peek() != "}":
            name = self._name()
            pairs.append((name, self._item()))
            self._separator("}")
        self._leave()
        return _merged(pairs)

    def _enter(self) -> None:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise self._error(f"it nests deeper than {MAX_NESTING} levels")
        self._offset += 1

    def _leave(self) -> None:
        self._nesting -= 1
        self._offset += 1

    def _item(self) -> Value:
        """Return the next value; one left out before a comma is undefined, which prints as nothing."""
        return "" if self._peek() == "," else self._value()

    def _separator(self, closing: str) -> None:
        character = self._peek()
        if character == ",":
            self._offset += 1
        elif character != closing:
            raise self._unexpected()

    def _name(self) -> str:
        name = self._string() if self._peek() in {'"', "'"} else self._take(_NAME)
        if name is None or self._peek() != ":":
            raise self._unexpected()
        self._offset += 1
        return name

    def _string(self) -> str:
        quoted = self._take(_STRING)
        if quoted is None:
            raise self._error("a string is not closed")
        return _ESCAPE.sub(self._unescaped, quoted[1:-1]) if "\\" in quoted else quoted[1:-1]

    def _unescaped(self, match: re.Match[str]) -> str:
        if match[1]:
            units = bytes.fromhex(match[1].replace("\\u", ""))
            return units.decode("utf-16-be", "replace")
        if match[2] not in _ESCAPES:
            raise self._error(f"bad escape sequence \\{match[2]} in the string that ends here")
        return _ESCAPES[match[2]]

    def _number(self, text: str) -> float:
        is_decimal = text[0] != "0" or text[1:2] in {"", ".", "e", "E"}
        number = parse_number(text) if is_decimal else _other_base(text)
        if math.isnan(number):
            raise self._error(f"bad number {text[:40]}")
        return number

    def _unexpected(self) -> JsonError:
        character = self._peek()
        return self._error(f"unexpected {character!r}" if character else "unexpected end")


def _other_base(text: str) -> float:
    """Return the 64-bit signed number that ``text``, which starts with 0, spells in base 16 or 8, or NaN."""
    try:
        number = int(text, 16 if text[1] in "xX" else 8)
    except ValueError:
        return math.nan
    if number >= 1 << 64:
        return math.nan
    return float(number - (1 << 64) if number >= 1 << 63 else number)
