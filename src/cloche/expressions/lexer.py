"""Text to tokens."""

from __future__ import annotations

import math
import re
from enum import Enum, auto
from typing import TYPE_CHECKING

from cloche.expressions.errors import LexingError
from cloche.expressions.values import WHITE_SPACE, parse_number
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.expressions.errors import Source


class Kind(Enum):
    """What a token is."""

    LITERAL = auto()  # null, true, 1, 'text'
    NAME = auto()  # a context
    FUNCTION = auto()  # a name with "(" after it
    PROPERTY = auto()  # a name with "." before it
    OPEN = auto()  # (
    CLOSE = auto()  # )
    OPEN_INDEX = auto()  # [
    CLOSE_INDEX = auto()  # ]
    SEPARATOR = auto()  # ,
    DOT = auto()  # .
    WILDCARD = auto()  # *
    NOT = auto()  # !
    OPERATOR = auto()  # == != < <= > >= && ||


@record
class Token:
    """One token: ``text`` is as typed, ``offset`` its place in the whole, ``value`` a literal's value."""

    kind: Kind
    text: str
    offset: int
    value: bool | float | str | None = None


_MARKS = {
    "(": Kind.OPEN,
    ")": Kind.CLOSE,
    "[": Kind.OPEN_INDEX,
    "]": Kind.CLOSE_INDEX,
    ",": Kind.SEPARATOR,
    "*": Kind.WILDCARD,
    "!": Kind.NOT,
}
_CONSTANTS: dict[str, bool | float | None] = {
    "null": None,
    "true": True,
    "false": False,
    "NaN": math.nan,
    "Infinity": math.inf,
}
_BOUNDARY = rf"()\[\],!><=&|{WHITE_SPACE}"
_TOKEN = re.compile(
    rf"""(?P<operator>==|!=|<=|>=|&&|\|\||[<>])
    |(?P<mark>[!()\[\],*])
    |(?P<string>'(?:[^']|'')*+')
    |(?P<number>[-+.0-9][^{_BOUNDARY}]*+)
    |(?P<name>[a-zA-Z_][a-zA-Z0-9_-]*+(?=[.{_BOUNDARY}]|\Z))""",
    re.VERBOSE,
)
_SPACE = re.compile(rf"[{WHITE_SPACE}]*+")
_CALL = re.compile(rf"[{WHITE_SPACE}]*+\(")
_REST_OF_WORD = re.compile(rf".[^.{_BOUNDARY}]*+", re.DOTALL)
# After one of these (or at the start) a dot begins a number: "(.5", "&& .5". A literal has no properties.
_BEFORE_NUMBER = {
    None,
    Kind.LITERAL,
    Kind.DOT,
    Kind.SEPARATOR,
    Kind.OPEN,
    Kind.OPEN_INDEX,
    Kind.NOT,
    Kind.OPERATOR,
}


def tokens(source: Source) -> Iterator[Token]:
    """Yield the tokens of ``source`` one after the other.

    Raises LexingError when it comes to what is no token.
    """
    previous: Kind | None = None
    offset = source.start
    while (offset := _after_space(source, offset)) < source.end:
        token = _token_at(source, offset, previous)
        yield token
        previous = token.kind
        offset += len(token.text)


def _after_space(source: Source, offset: int) -> int:
    match = _SPACE.match(source.whole, offset, source.end)
    return match.end() if match else offset


def _token_at(source: Source, offset: int, previous: Kind | None) -> Token:
    if source.whole[offset] == "." and previous not in _BEFORE_NUMBER:
        return Token(Kind.DOT, ".", offset)
    match = _TOKEN.match(source.whole, offset, source.end)
    if match is None:
        raise _unexpected(source, offset)
    text = match[0]
    match match.lastgroup:
        case "operator":
            return Token(Kind.OPERATOR, text, offset)
        case "mark":
            return Token(_MARKS[text], text, offset)
        case "string":
            return Token(Kind.LITERAL, text, offset, text[1:-1].replace("''", "'"))
        case "number":
            return _number(source, text, offset)
        case _:
            return _word(source, text, offset, previous)


def _number(source: Source, text: str, offset: int) -> Token:
    value = parse_number(text)
    if math.isnan(value):
        raise source.error(LexingError, "Unexpected symbol", text, offset)
    return Token(Kind.LITERAL, text, offset, value)


def _word(source: Source, text: str, offset: int, previous: Kind | None) -> Token:
    if previous is Kind.DOT:
        return Token(Kind.PROPERTY, text, offset)
    if text in _CONSTANTS:
        return Token(Kind.LITERAL, text, offset, _CONSTANTS[text])
    is_call = _CALL.match(source.whole, offset + len(text), source.end)
    return Token(Kind.FUNCTION if is_call else Kind.NAME, text, offset)


def _unexpected(source: Source, offset: int) -> LexingError:
    match = _REST_OF_WORD.match(source.whole, offset, source.end)
    symbol = match[0] if match else source.whole[offset]
    hint = None
    if symbol[0] == "'":
        symbol = source.whole[offset : source.end]
        hint = "the string is not closed; a quote inside a string is written twice: 'it''s'"
    elif symbol[0] in '"`':
        hint = "strings are written in single quotes: 'text'"
    elif symbol[0] in "=&|":
        hint = "the operators are ==, && and ||"
    return source.error(LexingError, "Unexpected symbol", symbol, offset, hint)
