import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.expressions import (
    CaseSensitiveDict,
    EvaluationError,
    Pending,
    Scope,
    Value,
    equals,
    parse,
    truthy,
)

GITHUB: dict[str, Value] = {
    "ref": "refs/heads/main",
    "Head-Ref": "topic",
    "event": {
        "number": 7,
        "labels": [{"name": "bug", "id": 1}, {"name": "docs"}, "odd", {"id": None}],
        "": "empty",
        "true": "yes",
    },
}
SCOPE = Scope({"github": GITHUB, "env": CaseSensitiveDict({"A": "1"})})


def value(text: str, scope: Scope = SCOPE) -> Value:
    return parse(text).evaluate(scope)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("github.ref", "refs/heads/main"),
        ("GITHUB.REF", "refs/heads/main"),
        ("github.head-ref", "topic"),
        ("github['HEAD-REF']", "topic"),
        ("github.missing", None),
        ("github.missing.more", None),
        ("github.ref.length", None),
        ("github.event[null]", "empty"),
        ("github.event[true]", "yes"),
        ("github.event[github]", None),
        ("github.event.labels[1].name", "docs"),
        ("github.event.labels['1'].name", "docs"),
        ("github.event.labels[1.9].name", "docs"),
        ("github.event.labels[-1]", None),
        ("github.event.labels[4]", None),
        ("github.event.labels[NaN]", None),
        ("github.event.labels[Infinity]", None),
        ("github.event.labels.name", None),
        ("('text')[0]", None),
        ("github[*.ref]", None),
    ],
)
def test_properties_and_indexes(text: str, expected: Value) -> None:
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("github.event.labels.*.name", ["bug", "docs"]),
        ("github.event.labels[*]['ID']", [1, None]),
        ("github.event.labels.*.*", ["bug", 1, "docs", None]),
        ("github.event.*.number", []),
        ("github.event.*[0].name", ["bug"]),
        ("github.missing.*", []),
        ("github.missing.*.name", []),
        ("github.ref.*", []),
        ("github.event.labels.*[0]", []),
    ],
)
def test_filters(text: str, expected: Value) -> None:
    assert value(text) == expected


def test_a_context_that_is_known_but_absent_is_null() -> None:
    assert value("matrix.os") is None


def test_case_counts_where_the_scope_says_so() -> None:
    assert value("env.A") == "1"
    assert value("ENV.a") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 && 'a'", "a"),
        ("0 && nothing", 0),
        ("'' || null || 'x'", "x"),
        ("false || ''", ""),
        ("!github", False),
        ("null == 0", True),
        ("'ABC' == 'abc'", True),
        ("NaN != NaN", True),
        ("null >= null", True),
        ("2 <= 2", True),
        ("2 <= 1", False),
        ("2 < 2", False),
        ("github >= github", True),
        ("github > github", False),
        ("github < 1", False),
        ("'a' < 'B'", True),
        ("true > false", True),
        ("'2' > 10", False),
        ("'2' > '10'", True),
    ],
)
def test_operators(text: str, expected: Value) -> None:
    assert parse(text.replace("nothing", "github.x")).evaluate(SCOPE) == expected


def test_an_operand_that_does_not_matter_is_not_evaluated() -> None:
    assert value("true || fromJSON('bad')") is True
    assert value("false && fromJSON('bad')") is False
    assert value("github.missing[fromJSON('bad')]") is None


def test_functions_come_from_the_scope_with_their_arguments_evaluated() -> None:
    seen: list[list[Value]] = []

    def hash_files(arguments: list[Value]) -> Value:
        seen.append(arguments)
        return "abc"

    scope = Scope({}, {"hashFiles": hash_files, "always": lambda _: True})
    assert value("always() && HASHFILES('a', 1 == 1)", scope) == "abc"
    assert seen == [["a", True]]


def test_a_function_the_scope_lacks_is_named_with_its_place() -> None:
    with pytest.raises(EvaluationError, match="'hashFiles' is not available here") as caught:
        value("1 && hashFiles('x')")
    assert caught.value.offset == 5


def test_pending_passes_so_that_the_caller_can_find_out_and_ask_again() -> None:
    known: dict[object, str] = {}

    def hash_files(arguments: list[Value]) -> Value:
        key = tuple(map(str, arguments))
        if key not in known:
            raise Pending(key)
        return known[key]

    expression = parse("format('{0}-{1}', hashFiles('a'), hashFiles('b'))")
    scope = Scope({}, {"hashFiles": hash_files})
    for name in "ab":
        with pytest.raises(Pending) as caught:
            expression.evaluate(scope)
        assert caught.value.key == (name,)
        known[caught.value.key] = name.upper()
    assert expression.evaluate(scope) == "A-B"


def test_an_error_inside_a_call_keeps_its_own_place() -> None:
    with pytest.raises(EvaluationError) as caught:
        value("format('{0}', fromJSON('bad'))")
    assert caught.value.offset == 14


JSON: st.SearchStrategy[Value] = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.sampled_from("abAB01"), values, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON, JSON)
def test_and_or_not_agree_with_truth(left: Value, right: Value) -> None:
    scope = Scope({"github": left, "env": right})
    assert value("!!github", scope) is truthy(left)
    assert value("github && env", scope) is (right if truthy(left) else left)
    assert value("github || env", scope) is (left if truthy(left) else right)
    assert value("github == env", scope) is equals(left, right)
    assert value("github != env", scope) is not equals(left, right)


@given(JSON)
def test_a_filter_then_a_name_is_that_name_of_each(items: Value) -> None:
    scope = Scope({"github": items})
    parts = list(items.values()) if isinstance(items, dict) else items if isinstance(items, list) else []
    expected = [value("github.a", Scope({"github": part})) for part in parts if isinstance(part, dict)]
    found = value("github.*.a", scope)
    assert isinstance(found, list)
    assert [item for item in found if item is not None] == [item for item in expected if item is not None]
