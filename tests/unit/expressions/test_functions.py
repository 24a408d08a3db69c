import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.expressions import EvaluationError, Scope, Value, parse

SCOPE = Scope(
    {
        "github": {
            "empty": [],
            "array": ["one", 2, True, None, ["x"], {"k": "v"}],
            "object": {"k": "v"},
            "names": [{"name": "Bug"}, {"name": "docs"}],
        }
    }
)


def value(text: str) -> Value:
    return parse(text).evaluate(SCOPE)


def failure(text: str) -> str:
    with pytest.raises(EvaluationError) as caught:
        value(text)
    return caught.value.message


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("contains('Hello', 'ELL')", True),
        ("contains('Hello', '')", True),
        ("contains(null, '')", True),
        ("contains(1234, 23)", True),
        ("contains('x', github.array)", False),
        ("contains(github.object, 'v')", False),
        ("contains(github.array, 'ONE')", True),
        ("contains(github.array, '2')", True),
        ("contains(github.array, github.array[4])", True),
        ("contains(github.array, fromJSON('[\"x\"]'))", False),
        ("contains(github.names.*.name, 'bug')", True),
        ("contains(github.empty, fromJSON('bad'))", False),
        ("startsWith('Hello', 'he')", True),
        ("startsWith('Hello', 'lo')", False),
        ("startsWith(123, 12)", True),
        ("startsWith(github.array, 'one')", False),
        ("endsWith('Hello', 'LO')", True),
        ("endsWith('Hello', null)", True),
        ("endsWith('Hello', github.object)", False),
        ("endsWith(github.object, fromJSON('bad'))", False),
    ],
)
def test_searching(text: str, expected: Value) -> None:
    assert value(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("format('plain')", "plain"),
        ("format('{0} {1} {0}', 'a', 2)", "a 2 a"),
        ("format('{{{0}}} }}{{', 'a')", "{a} }{"),
        ("format('{000}', 'a')", "a"),
        ("format('{0:}', 'a')", "a"),
        ("format('{0}{1}{2}', null, github.object, github.empty)", "ObjectArray"),
        ("format('never', fromJSON('bad'))", "never"),
        ("format(1.50)", "1.5"),
    ],
)
def test_format(text: str, expected: str) -> None:
    assert value(text) == expected


@pytest.mark.parametrize("template", ["{", "}", "{}", "{a}", "{0", "{0}}", "{-1}", "{0 }", "{256}", "{0:x"])
def test_a_bad_format_is_refused(template: str) -> None:
    assert failure(f"format('{template}', 1)") == f"The following format string is invalid: {template}"


def test_an_argument_too_few_is_told() -> None:
    problem = "The following format string references more arguments than were supplied"
    assert failure("format('{0} {1}', 1)") == f"{problem}: {{0}} {{1}}"


def test_format_specifiers_are_refused_as_on_github() -> None:
    message = "The format specifiers 'x}' are not valid for objects of type 'Number'"
    assert failure("format('{0:x}}}', 1)") == message


def test_a_long_format_is_cut_in_the_message() -> None:
    assert len(failure(f"format('{'x' * 5000}}}')")) < 1100


def test_each_argument_of_format_is_evaluated_once() -> None:
    answers = iter(["abc"])
    scope = Scope({}, {"hashFiles": lambda _: next(answers)})
    assert parse("format('{0}{0}', hashFiles('x'))").evaluate(scope) == "abcabc"


@given(st.text(max_size=30), st.text(max_size=10))
def test_escaped_braces_come_out_as_they_went_in(text: str, argument: str) -> None:
    template = text.replace("{", "{{").replace("}", "}}")
    assert value(f"format({quoted(template + '{0}')}, {quoted(argument)})") == text + argument


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("join(github.array)", "one,2,true,,Array,Object"),
        ("join(github.names.*.name, ' & ')", "Bug & docs"),
        ("join(github.names.*.name, github.object)", "Bug,docs"),
        ("join(github.names.*.name, null)", "Bugdocs"),
        ("join(github.empty, fromJSON('bad'))", ""),
        ("join('text', '-')", "text"),
        ("join(null)", ""),
        ("join(github.object)", ""),
    ],
)
def test_join(text: str, expected: str) -> None:
    assert value(text) == expected


def test_case_takes_the_first_that_is_true_and_looks_no_further() -> None:
    assert value("case(false, fromJSON('bad'), true, 'b', fromJSON('bad'), 'c', 'd')") == "b"
    assert value("case(false, 'a', 1 > 2, 'b', 'last')") == "last"


def test_case_wants_booleans() -> None:
    assert failure("case('true', 1, 2)") == "case predicate must evaluate to a boolean value"


def test_json_that_is_none_is_told_with_its_place() -> None:
    assert (
        failure("fromJSON('{\"a\": nope}')") == "Error parsing fromJson: unexpected 'n', line 1, position 7"
    )
    assert failure("fromJSON(null)") == "Error parsing fromJson: unexpected end, line 1, position 1"


def test_to_json_and_back() -> None:
    text = value("toJSON(github)")
    assert isinstance(text, str)
    assert json.loads(text) == SCOPE.contexts["github"]
    assert value("fromJSON(toJSON(github)).object.k") == "v"
