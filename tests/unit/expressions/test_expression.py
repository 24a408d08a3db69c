import tracemalloc

import pytest

from cloche.expressions import EvaluationError, ExpressionError, Scope, Value, parse
from cloche.expressions.budget import MAX_MEMORY


def test_references_name_each_context_and_its_first_property() -> None:
    expression = parse("GitHub.ref && needs['build'].outputs.x || steps[env.A].y || toJSON(matrix) || vars.*")
    assert expression.references() == {
        ("github", "ref"),
        ("needs", "build"),
        ("steps", None),
        ("env", "A"),
        ("matrix", None),
        ("vars", None),
    }


def test_functions_called_are_found_anywhere() -> None:
    expression = parse("contains(github[toJSON(1)], 'always()') && !(Success() == 1)")
    assert expression.functions_called() == {"contains", "tojson", "success"}


def test_an_empty_expression_is_null_and_refers_to_nothing() -> None:
    expression = parse(" ")
    assert expression.evaluate(Scope({})) is None
    assert not expression.references()
    assert not expression.functions_called()


def test_only_allowed_names_are_known() -> None:
    assert parse("custom.x", contexts=["Custom"]).evaluate(Scope({"custom": {"x": 1}})) == 1
    with pytest.raises(ExpressionError, match="Unrecognized named-value: 'github'"):
        parse("github", contexts=[])
    with pytest.raises(ExpressionError, match="Unrecognized function: 'always'"):
        parse("always()", functions=[])


HALF = MAX_MEMORY // 4
BIG = Scope(
    {
        "github": {
            "half": "x" * HALF,
            "huge": "x" * (2 * HALF + 1),
            "bomb": "{0}" * 100_000,
            "many": ["y" * 100] * 60_000,
            "numbers": [1.0] * 450_000,
            "keys": {f"key{number}": "z" * 100 for number in range(50_000)},
            "digits": "[" * 2_000_000,
        }
    }
)


@pytest.mark.parametrize(
    "text",
    [
        "github.huge",
        "format('{0}{0}', github.half)",
        "format(github.bomb, github.many[0])",
        "join(github.many, '0123456789')",
        "toJSON(github)",
        "toJSON(github.keys)",
        "fromJSON(github.digits)",
        "github.numbers.*",
        "github.half == github.half",
        "contains(github.numbers, github.half)",
        " || ".join(["contains(github.half, 'z')"] * 500),
        " || ".join(["github.keys.none"] * 1000),
    ],
)
def test_what_grows_without_end_is_stopped(text: str) -> None:
    with pytest.raises(EvaluationError):
        parse(text).evaluate(BIG)


def test_the_memory_used_before_the_stop_is_small() -> None:
    expression = parse("join(github.many, github.half)")
    tracemalloc.start()
    try:
        with pytest.raises(EvaluationError):
            expression.evaluate(BIG)
        assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY
    finally:
        tracemalloc.stop()


def test_the_memory_error_says_what_and_how_much() -> None:
    with pytest.raises(EvaluationError) as caught:
        parse("github.huge").evaluate(BIG)
    assert caught.value.message == (
        "The maximum allowed memory size was exceeded while evaluating the following expression: github.huge"
    )
    assert "10 MiB at a time" in (caught.value.hint or "")


def test_memory_of_what_is_done_with_is_free_again() -> None:
    chain = " || ".join(["contains(github.half, 'z')"] * 20)
    assert parse(f"{chain} || 'done'").evaluate(BIG) == "done"


def test_a_budget_is_per_evaluation() -> None:
    expression = parse("format('{0}', github.half)")
    results: list[Value] = [expression.evaluate(BIG) for _ in range(3)]
    assert [len(str(result)) for result in results] == [HALF] * 3
