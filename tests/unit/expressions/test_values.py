import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.expressions.values import (
    Value,
    equals,
    fold,
    kind,
    order,
    parse_number,
    print_number,
    to_number,
    to_string,
    truthy,
)

PRIMITIVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("  ", 0),
        (" 12 ", 12),
        ("\u300012\u00a0", 12),
        ("+1.5e3", 1500),
        ("5.", 5),
        (".5", 0.5),
        ("0x1F", 31),
        ("0x0000000000ff", 255),
        ("0o17", 15),
        ("Infinity", math.inf),
        ("-infinity", -math.inf),
        ("1e999", math.inf),
    ],
)
def test_text_that_spells_a_number(text: str, number: float) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text",
    ["abc", ".", "1e", "1_0", "\u0661", "0X1F", "-0x1F", "0b1", "0o8", "0x", "1 2", "\x1c1", "Inf", "NaN"],
)
def test_text_that_spells_none(text: str) -> None:
    assert math.isnan(parse_number(text))


def test_hexadecimal_and_octal_are_signed_and_32_bits_wide() -> None:
    assert parse_number("0xffffffff") == -1
    assert parse_number("0x7fffffff") == 2**31 - 1
    assert parse_number("0o37777777777") == -1
    assert math.isnan(parse_number("0x100000000"))
    assert math.isnan(parse_number("0o40000000000"))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (3, "3"),
        (-2.50, "-2.5"),
        (0.1 + 0.2, "0.3"),
        (123456789012345, "123456789012345"),
        (1234567890123456, "1.23456789012346E+15"),
        (1e15, "1E+15"),
        (0.0001, "0.0001"),
        (0.00001, "1E-05"),
        (1e100, "1E+100"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (10**400, "Infinity"),
        (-(10**400), "-Infinity"),
    ],
)
def test_numbers_print_like_g15(number: float, text: str) -> None:
    assert print_number(number) == text


@given(st.floats(min_value=-1e308, max_value=1e308))
def test_a_printed_number_reads_as_nearly_the_same(number: float) -> None:
    assert math.isclose(parse_number(print_number(number)), number, rel_tol=1e-14, abs_tol=5e-324)


@pytest.mark.parametrize(
    ("value", "name", "text", "truth"),
    [
        (None, "Null", "", False),
        (True, "Boolean", "true", True),
        (False, "Boolean", "false", False),
        (0, "Number", "0", False),
        (math.nan, "Number", "NaN", False),
        (7, "Number", "7", True),
        ("", "String", "", False),
        ("0", "String", "0", True),
        ([], "Array", "Array", True),
        ({}, "Object", "Object", True),
    ],
)
def test_kind_text_and_truth(value: Value, name: str, text: str, truth: bool) -> None:  # noqa: FBT001 - a table
    assert (kind(value), to_string(value), truthy(value)) == (name, text, truth)


def test_what_is_no_primitive_is_no_number() -> None:
    assert math.isnan(to_number([]))
    assert math.isnan(to_number({}))
    assert to_number(True) == 1


def test_mixed_kinds_compare_as_numbers() -> None:
    assert equals(None, "")
    assert equals(True, "1")
    assert equals(" 0x10 ", 16)
    assert not equals("true", True)
    assert order("10", 9) == 1
    assert order("10", "9") == -1


def test_arrays_and_objects_equal_only_themselves() -> None:
    array: list[Value] = []
    assert equals(array, array)
    assert not equals(array, [])
    assert not equals(array, 0)
    assert order({}, {}) is None


def test_case_does_not_count_but_other_differences_do() -> None:
    assert equals("Straße ΣΊΣΥΦΟΣ", "sTRAßE σίσυφος")
    assert not equals("ß", "SS")
    assert not equals("\u0131", "I")
    assert not equals("\u017f", "S")
    assert not equals("\u0130", "i")
    assert equals("ᾳ", "ᾼ")


def test_text_is_ordered_by_utf16_unit() -> None:
    assert order("\U0001f600", "\uffee") == -1
    assert order("a", "[") == -1
    assert order("\ud800", "a") == 1


@given(PRIMITIVES, PRIMITIVES)
def test_order_is_the_same_from_both_sides(left: Value, right: Value) -> None:
    forth, back = order(left, right), order(right, left)
    assert (forth is None) == (back is None)
    assert forth is None or back is None or forth == -back
    assert equals(left, right) == (forth == 0)


@given(st.text())
def test_folding_keeps_the_length_and_is_done_once(text: str) -> None:
    folded = fold(text)
    assert len(folded) == len(text)
    assert fold(folded) == folded


def test_folding_any_single_character_gives_one_character() -> None:
    changed = [chr(code) for code in range(sys.maxunicode + 1) if len(chr(code).upper()) != 1]
    assert changed
    assert all(len(fold(character)) == 1 for character in changed)
