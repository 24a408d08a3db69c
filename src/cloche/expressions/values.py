"""The values of the language: kinds, coercions, comparison and printing.

Rules: https://docs.github.com/en/actions/reference/workflows-and-actions/expressions and, where that page is
silent, what actions/runner does (numbers are .NET doubles, text is compared by ordinal, ignoring case).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeGuard

Value: TypeAlias = "bool | float | str | Sequence[Value] | Mapping[str, Value] | None"
"""Plain Python data as JSON has it: objects are dicts, arrays lists; integers count as floats."""

WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What .NET holds to be white space (Python would add four separators). Good inside a character class."""

_DECIMAL = re.compile(r"[-+]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][-+]?[0-9]++)?")
# Compiled where they are first needed, which is rare.
_HEXADECIMAL = r"0x(?=[0-9a-fA-F])0*+(?:[1-9a-fA-F][0-9a-fA-F]{0,7})?"
_OCTAL = r"0o(?=[0-7])0*+(?:[1-3][0-7]{10}|[1-7][0-7]{0,9})?"
_INFINITE = {"infinity": math.inf, "+infinity": math.inf, "-infinity": -math.inf}
_LONGEST_WORD = len("-infinity")

# .NET's ordinal comparison gives these no upper case: dotless i and long s.
_CASELESS = "\u0131\u017f"
# All characters whose upper case is longer than one character are among these.
_UNEVEN_CASE = rf"[{_CASELESS}\xdf\u0149\u01f0\u0390\u03b0\u0587\u1e96-\u1e9a\u1f50-\u1fff\ufb00-\ufb17]"


class CaseSensitiveDict(dict[str, Value]):
    """An object whose keys count as they are written; GitHub's ``env`` is one on Linux."""


def is_object(value: Value) -> TypeGuard[Mapping[str, Value]]:
    """Whether ``value`` is of the kind Object."""
    return isinstance(value, Mapping)


def is_array(value: Value) -> TypeGuard[Sequence[Value]]:
    """Whether ``value`` is of the kind Array."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def is_primitive(value: Value) -> bool:
    """Whether ``value`` is null, a boolean, a number or a string."""
    return value is None or isinstance(value, str | float | int)


def kind(value: Value) -> str:
    """GitHub's name for the kind of ``value``: Null, Boolean, Number, String, Array or Object."""
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return "Boolean"
    if isinstance(value, str):
        return "String"
    if isinstance(value, Mapping):
        return "Object"
    return "Array" if isinstance(value, Sequence) else "Number"


def truthy(value: Value) -> bool:
    """Whether ``value`` counts as true: all but null, false, 0, -0, NaN and the empty string."""
    if isinstance(value, float):
        return not (value == 0 or math.isnan(value))
    return bool(value) if is_primitive(value) else True


def to_number(value: Value) -> float:
    """``value`` as a number: null is 0, true 1, a string what it spells; the rest is NaN."""
    if value is None:
        return 0.0
    if isinstance(value, str):
        return parse_number(value)
    return as_float(value) if isinstance(value, int | float) else math.nan


def to_string(value: Value) -> str:
    """``value`` as ``${{ }}`` prints it: null is empty, an array ``Array``, an object ``Object``."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return print_number(value)
    return kind(value)


def as_float(number: float) -> float:
    """Return ``number`` as a double; an integer too big for one is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def parse_number(text: str) -> float:
    """Return the number ``text`` spells, surrounding white space aside; empty is 0, anything else NaN.

    Hexadecimal and octal are 32 bits wide and signed, as in actions/runner: ``0xffffffff`` is -1.
    """
    text = text.strip(WHITE_SPACE)
    if not text:
        return 0.0
    if _DECIMAL.fullmatch(text):
        return float(text)
    if re.fullmatch(_HEXADECIMAL, text):
        return _signed_32_bits(int(text, 0))
    if re.fullmatch(_OCTAL, text):
        return _signed_32_bits(int(text, 0))
    return _INFINITE.get(text.lower(), math.nan) if len(text) <= _LONGEST_WORD else math.nan


def _signed_32_bits(number: int) -> float:
    return float(number - (1 << 32) if number >= 1 << 31 else number)


def print_number(number: float) -> str:
    """Return ``number`` as .NET's format ``G15`` has it, zero never negative."""
    number = as_float(number)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return "0" if number == 0 else f"{number:.15G}"


def equals(left: Value, right: Value) -> bool:
    """``left == right``: strings without case, mixed kinds as numbers, arrays and objects by identity."""
    if isinstance(left, str) and isinstance(right, str):
        return left == right or (len(left) == len(right) and fold(left) == fold(right))
    return order(left, right) == 0


def order(left: Value, right: Value) -> int | None:
    """-1, 0 or 1 as ``left`` is before, equal to or after ``right``; ``None`` where neither holds.

    NaN is in no order, nor are arrays and objects unless they are the same one.
    """
    if isinstance(left, str) and isinstance(right, str):
        return _order_texts(left, right)
    if not (is_primitive(left) and is_primitive(right)):
        return 0 if left is right else None
    one, other = to_number(left), to_number(right)
    if math.isnan(one) or math.isnan(other):
        return None
    return (one > other) - (one < other)


def _order_texts(left: str, right: str) -> int:
    left, right = fold(left), fold(right)
    if left == right:
        return 0
    if not (left.isascii() and right.isascii()):
        # .NET orders by UTF-16 unit, which puts emoji before the last Chinese compatibility forms.
        return 1 if _units(left) > _units(right) else -1
    return 1 if left > right else -1


def _units(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")


def fold(text: str) -> str:
    """``text`` so that two texts which differ in case only become equal; its length stays the same."""
    if text.isascii() or not re.search(_UNEVEN_CASE, text):
        return text.upper()
    return text.translate({ord(character): _upper(character) for character in set(text)})


def _upper(character: str) -> str:
    """Return the one upper-case character, as Unicode's simple mapping has it, or ``character``."""
    if character in _CASELESS:
        return character
    candidates = (character.upper(), character.title())
    return next((candidate for candidate in candidates if len(candidate) == 1), character)
