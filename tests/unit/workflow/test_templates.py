import time

import pytest

from cloche.errors import Position
from cloche.expressions import ExpressionError
from cloche.workflow.nodes import Scalar
from cloche.workflow.schema import Allowed
from cloche.workflow.templates import Insert, Templated, interpret

ALLOWED = Allowed(frozenset({"github"}))


def meaning(text: str) -> object:
    return interpret(Scalar(text, text, Position("w.yml", 1, 1)), ALLOWED)


def problem(text: str) -> str:
    found = meaning(text)
    assert isinstance(found, ExpressionError)
    return found.message


def test_what_a_text_may_mean() -> None:
    assert isinstance(meaning("${{ insert }}"), Insert)
    assert isinstance(meaning("a ${{ github.ref }}"), Templated)
    literal = meaning("${{ 'a' }}")
    assert isinstance(literal, Scalar)
    assert literal.value == "a"


@pytest.mark.parametrize("text", ["a ${{ insert }}", "${{insert}} ${{ github }}"])
def test_insert_stands_alone(text: str) -> None:
    assert problem(text).startswith("The directive 'insert' is not allowed in this context.")


@pytest.mark.parametrize(("text", "count"), [("${{ insert x }}", 1), ("${{ insert 'a' b }}", 2)])
def test_insert_has_no_parameters(text: str, count: int) -> None:
    assert problem(text) == (
        "Exactly 0 parameter(s) were expected following the directive 'insert'. "
        f"Actual parameter count: {count}"
    )


def test_insert_is_no_context() -> None:
    assert problem("${{ inserted }}").startswith("Unrecognized named-value: 'inserted'")
    assert problem("${{ insert").startswith("The expression is not closed")


@pytest.mark.parametrize("text", ["${{ insert ", "${{ insert '", "${{ ", "${{   insert }", "${{'"])
def test_many_beginnings_without_an_end_take_little_time(text: str) -> None:
    started = time.monotonic()
    meaning(text * (1_000_000 // len(text)))
    assert time.monotonic() - started < 5
