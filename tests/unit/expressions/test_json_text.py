import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.expressions.budget import Budget, OutOfMemory
from cloche.expressions.json_text import MAX_NESTING, MAX_VALUES, JsonError, read_json, write_json
from cloche.expressions.values import Value, fold

SCALARS = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
NAMES = st.text(max_size=4)
VALUES: st.SearchStrategy[Value] = st.recursive(
    SCALARS,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(NAMES, values, max_size=4),
    max_leaves=12,
)


def write(value: Value) -> str:
    return write_json(value, Budget().meter())


def test_the_printed_form_is_githubs() -> None:
    assert write({"a": [1, 2.5, [], {}], "b": {"c": None}, "é": True}) == (
        '{\n  "a": [\n    1,\n    2.5,\n    [],\n    {}\n  ],\n  "b": {\n    "c": null\n  },\n  "é": true\n}'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (1e21, "1E+21"),
        (-0.0, "0"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        ('a"b\\c\n\t\x01\x7f', '"a\\"b\\\\c\\n\\t\\u0001\x7f"'),
        ("\x85\u2028\u2029", '"\\u0085\\u2028\\u2029"'),
        ("/é😀", '"/é😀"'),
    ],
)
def test_scalars(value: Value, text: str) -> None:
    assert write(value) == text


@given(st.none() | st.booleans() | st.text() | st.lists(st.text()) | st.dictionaries(NAMES, st.text()))
def test_the_printed_form_is_json(value: Value) -> None:
    assert json.loads(write(value)) == value


@given(VALUES, st.booleans())
def test_standard_json_is_read(value: Value, ascii_only: bool) -> None:  # noqa: FBT001 - drawn by hypothesis
    text = json.dumps(value, ensure_ascii=ascii_only)
    read = read_json(text)
    assert same(read, value)


def same(read: Value, value: Value) -> bool:
    """Whether ``read`` is ``value`` with names merged that differ in case only."""
    if isinstance(value, dict):
        last = {fold(name): item for name, item in value.items()}
        return (
            isinstance(read, dict)
            and [fold(name) for name in read] == list(last)
            and all(same(item, last[fold(name)]) for name, item in read.items())
        )
    if isinstance(value, list):
        return isinstance(read, list) and len(read) == len(value) and all(map(same, read, value))
    return read == value


@given(st.lists(st.text(st.characters(min_codepoint=32, max_codepoint=126))))
def test_a_printed_python_list_is_read(items: list[str]) -> None:
    assert read_json(repr(items)) == items


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1,2,]", [1, 2]),
        ('{"a": 1,}', {"a": 1}),
        ("{a: 1, $b_2: 'x'}", {"a": 1, "$b_2": "x"}),
        ("// note\n[1 /* one */, 2]", [1, 2]),
        ("[1,,2]", [1, "", 2]),
        ("[,]", [""]),
        ('{"a":,"b":2}', {"a": "", "b": 2}),
        ("[undefined]", [""]),
        ("[010, 0x10, .5, -1.5e1]", [8, 16, 0.5, -15]),
        ("0xFFFFFFFFFFFFFFFF", -1),
        ("1 2", 1),
        ("{} trailing", {}),
        ("'it\\'s'", "it's"),
        ('"a\nb"', "a\nb"),
        ('\u00a0"x"', "x"),
        ('"\\ud83d\\ude00\\u0041"', "😀A"),
        ("-Infinity", -math.inf),
        ('{"a": 1, "A": 2, "b": 3}', {"a": 2, "b": 3}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("1" * 400, math.inf),
    ],
)
def test_what_the_runner_reads_beyond_the_standard(text: str, value: Value) -> None:
    assert read_json(text) == value


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    read = read_json('["\\ud83d", "\\ude00x", "\\ud83d\\ud83d\\ude00"]')
    assert read == ["\ufffd", "\ufffdx", "\ufffd😀"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "  ", "/* open", "{", "[", "[1", "[1 2]", "[1}", "{1: 2", "{a}", '{"a" 1}', '{"a": }', "{,}"),
        *("'open", '"\\x"', '"\\u12"', "tru", "truex", "nul", "+1", "1x", "-", "1.2.3", "08", "0x", "NaNa"),
        "0x10000000000000000",
        *("]", ":", "\x01"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(JsonError, match=r"line 1, position \d+$"):
        read_json(text)


@pytest.mark.parametrize("opening", ["[", '{"a":', "{a:", "['x',["])
def test_nesting_is_limited(opening: str) -> None:
    with pytest.raises(JsonError, match="nests deeper than 64 levels"):
        read_json(opening * 60_000)
    assert read_json("[" * MAX_NESTING + "]" * MAX_NESTING)
    assert read_json("[" + "['[['],[]," * MAX_NESTING + "]")
    assert read_json("[" + '["[["],[],' * MAX_NESTING + "1]")


def test_the_number_of_values_is_limited() -> None:
    with pytest.raises(JsonError, match=f"more than {MAX_VALUES} values"):
        read_json("[" + "0," * MAX_VALUES + "0]")


@given(st.text(st.sampled_from("[]{},:'\"\\/*01ax.-+ \nutfn")))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        value = read_json(text)
    except JsonError:
        return
    assert same(read_json(write(value)), value) or "NaN" in write(value)


def test_a_deep_value_is_written_without_recursion_until_it_is_too_big() -> None:
    value: list[Value] = []
    for _ in range(60_000):
        value = [value]
    with pytest.raises(OutOfMemory):
        write(value)
