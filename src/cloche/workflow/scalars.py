"""Types of YAML scalars: the YAML 1.2 core schema as GitHub reads it.

Rules from actions/runner, ``WorkflowParser/Conversion/YamlObjectReader``: ``on``, ``yes``, ``12:30`` and
``1_000`` are strings; hexadecimal and octal numbers have 32 bits, two's complement.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.workflow.nodes import ScalarValue

_TAG = "tag:yaml.org,2002:"
TAG_STRING = f"{_TAG}str"
_TAG_INTEGER = f"{_TAG}int"

_NULLS = frozenset({"", "null", "Null", "NULL", "~"})
_BOOLEANS = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_SPECIAL_FLOATS = {
    **{f"{sign}.{name}": float("inf") for sign in ("", "+") for name in ("inf", "Inf", "INF")},
    **{f"-.{name}": float("-inf") for name in ("inf", "Inf", "INF")},
    **{f".{name}": float("nan") for name in ("nan", "NaN", "NAN")},
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0x(?P<hex>[0-9a-fA-F]+)|0o(?P<octal>[0-7]+)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORD = 1 << 32
_SIGN = 1 << 31


class OutOfRangeError(ValueError):
    """The text does not fit the type that its form or its ``tag`` asks for."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag)
        self.tag = tag


class UnknownTagError(ValueError):
    """GitHub does not know the tag, which is the message."""


def resolve_plain(text: str) -> ScalarValue:
    """Return the value of an unquoted, untagged scalar.

    OutOfRangeError for 0x and 0o numbers past 32 bits.
    """
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    number = _integer(text)
    if number is None:
        number = _float(text)
    return text if number is None else number


def resolve_tagged(text: str, tag: str) -> ScalarValue:
    """Return the value of a scalar with an explicit tag.

    OutOfRangeError if it is not of that type, UnknownTagError for a tag that GitHub does not know.
    """
    if tag not in _TAGGED:
        raise UnknownTagError(tag)
    return _TAGGED[tag](text)


def _integer(text: str) -> float | None:
    if _INTEGER.fullmatch(text):
        return float(text)
    based = _BASED.fullmatch(text)
    if based is None:
        return None
    number = int(based["hex"], 16) if based["hex"] else int(based["octal"], 8)
    if number >= _WORD:
        raise OutOfRangeError(_TAG_INTEGER)
    return float(number - _WORD if number & _SIGN else number)


def _float(text: str) -> float | None:
    if text in _SPECIAL_FLOATS:
        return _SPECIAL_FLOATS[text]
    return float(text) if _FLOAT.fullmatch(text) else None


def _exactly(tag: str, match: Callable[[str], float | None]) -> Callable[[str], float]:
    def convert(text: str) -> float:
        value = match(text)
        if value is None:
            raise OutOfRangeError(tag)
        return value

    return convert


def _null(text: str) -> None:
    if text not in _NULLS:
        raise OutOfRangeError(f"{_TAG}null")


_TAGGED: dict[str, Callable[[str], ScalarValue]] = {
    TAG_STRING: str,
    f"{_TAG}bool": _exactly(f"{_TAG}bool", _BOOLEANS.get),
    _TAG_INTEGER: _exactly(_TAG_INTEGER, _integer),
    f"{_TAG}float": _exactly(f"{_TAG}float", _float),
    f"{_TAG}null": _null,
}
