import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.expressions import (
    EvaluationError,
    LexingError,
    ParsingError,
    Scope,
    Value,
    condition,
    parse_template,
)

SCOPE = Scope({"github": {"ref": "main", "n": 1.5, "list": [1], "none": None, "yes": True}})


def value(text: str) -> Value:
    return parse_template(text).evaluate(SCOPE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("plain $x {{ y }} }}", "plain $x {{ y }} }}"),
        ("${{ github.ref }}", "main"),
        ("${{github.n}}", 1.5),
        ("${{ github.list }}", [1]),
        ("${{ github.none }}", None),
        ("${{ github.yes }}", True),
        (" ${{ github.yes }}", " true"),
        ("${{ github.none }}\n", "\n"),
        ("${{ github.ref }}${{ github.n }}", "main1.5"),
        ("it's {0} ${{ github.ref }}}}", "it's {0} main}}"),
        ("${{ '}}' }}", "}}"),
        ("a${{ 'it''s }} ${{' }}b", "ait's }} ${{b"),
        ("x ${{ github.list }}", "x Array"),
        ("${{\tgithub.ref\n}}", "main"),
    ],
)
def test_what_a_string_is_worth(text: str, expected: Value) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "literal"),
    [("", True), ("plain", True), ("${{ 'quoted' }}", True), ("${{ 1 }}", False), ("x${{ 'y' }}", False)],
)
def test_a_literal_needs_no_scope(text: str, literal: bool) -> None:  # noqa: FBT001 - a table
    template = parse_template(text)
    assert template.is_literal is literal
    assert not literal or template.literal == template.evaluate(Scope({}))


@given(st.lists(st.text(max_size=8).filter(lambda text: "${{" not in text), min_size=1, max_size=6))
def test_text_survives_between_expressions_and_in_them(texts: list[str]) -> None:
    text = "|${{ 'x' }}".join(texts)
    assert value(text) == "|x".join(texts)
    quoted = "".join("${{ '" + part.replace("'", "''") + "' }}" for part in texts)
    assert value(quoted) == "".join(texts)


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        ("a ${{ github.ref", "The expression is not closed.", 2),
        ("a ${{ 'open }}", "The expression is not closed.", 2),
        ("a ${{ }}", "An expression was expected", 2),
        ("a ${{ nothing }} b", "Unrecognized named-value: 'nothing'. Located at position 1", 6),
        ("${{ 1 }} ${{  1 2 }}", "Unexpected symbol: '2'. Located at position 3", 16),
    ],
)
def test_mistakes_are_found_at_their_place_in_the_string(text: str, message: str, offset: int) -> None:
    with pytest.raises(ParsingError) as caught:
        parse_template(text)
    assert caught.value.message.startswith(message)
    assert caught.value.offset == offset


def test_a_token_that_is_none_is_found_at_its_place_too() -> None:
    with pytest.raises(LexingError) as caught:
        parse_template('${{ 1 }}${{ "x" }}')
    assert caught.value.offset == 12


def test_failing_to_evaluate_has_its_place_in_the_string() -> None:
    with pytest.raises(EvaluationError) as caught:
        value("a ${{ 1 }} ${{ fromJSON('bad') }}")
    assert caught.value.offset == 15


def test_the_names_allowed_are_checked() -> None:
    with pytest.raises(ParsingError, match="Unrecognized named-value: 'secrets'"):
        parse_template("${{ secrets.A }}", contexts=["github"])
    with pytest.raises(ParsingError, match="Unrecognized function: 'hashFiles'"):
        parse_template("${{ hashFiles('x') }}", functions=["always"])


def test_a_string_with_several_parts_counts_as_one_expression() -> None:
    parse_template("x" * 30_000)
    with pytest.raises(ParsingError, match="Exceeded max expression length 21000"):
        parse_template("x" * 21_000 + "${{ 1 }}")
    with pytest.raises(ParsingError, match="Exceeded max expression depth 50"):
        parse_template("x ${{ " + "!" * 49 + "1 }}")
    assert value("${{ 1 }}" * 254) == "1" * 254
    with pytest.raises(ParsingError, match="Too many parameters supplied"):
        parse_template("${{ 1 }}" * 255)


@pytest.mark.parametrize("piece", ["${{ ", "${{ 1 }}", "${{ '", "${{ } "])
def test_a_huge_string_is_refused_at_once(piece: str) -> None:
    with pytest.raises(ParsingError):
        parse_template(piece * 1_000_000)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("", "success()"),
        ("  ", "success()"),
        ("github.ref == 'x'", "success() && (github.ref == 'x')"),
        ("${{ github.ref }}", "success() && (github.ref)"),
        ("  ${{ github.ref }}", "success() && (format('  {0}', github.ref))"),
        ("${{ github.ref }} and ${{ 1 }}", "success() && (format('{0} and {1}', github.ref, 1))"),
        ("always()", "always()"),
        ("!CANCELLED()", "!CANCELLED()"),
        ("${{ failure() }} x", "format('{0} x', failure())"),
        ("contains('a', format('{0}', success()))", "contains('a', format('{0}', success()))"),
        ("github['always()']", "success() && (github['always()'])"),
        ("'success()'", "success() && ('success()')"),
        ("github.success", "success() && (github.success)"),
        ("${{ 'true' }}", "success() && (true)"),
        ("${{ ('true') }}", "success() && (('true'))"),
        ("it's {${{ 1 }}", "success() && (format('it''s {{{0}', 1))"),
        (" true ", "success() && (true)"),
    ],
)
def test_conditions(text: str, meaning: str) -> None:
    assert condition(text) == meaning


def test_a_mistake_in_a_condition_has_its_place() -> None:
    with pytest.raises(ParsingError) as caught:
        condition("  1 2")
    assert caught.value.offset == 4
    with pytest.raises(ParsingError, match="Unrecognized function: 'hashFiles'"):
        condition("hashFiles('x')", functions=["success"])
