"""Nodes to plain data."""

from __future__ import annotations

from typing import NoReturn

import pytest

from cloche.expressions import EvaluationError, Pending, Scope, Value
from cloche.workflow.evaluate import boolean, evaluate_node, number, scalar_text, text_mapping
from cloche.workflow.nodes import Mapping, Node, Scalar
from cloche.workflow.yaml import read

SCOPE = Scope(
    {
        "github": {
            "sha": "abc",
            "count": 3.0,
            "on": True,
            "list": [1.0, 2.0],
            "name": "KEY",
            "object": {"a": 1.0},
        }
    }
)


def node(text: str) -> Node:
    root = read(f"key: {text}\n", "w.yml")
    assert isinstance(root, Mapping)
    found = root.get("key")
    assert found is not None
    return found


def scalar(text: str) -> Scalar:
    found = node(text)
    assert isinstance(found, Scalar)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3.10", 3.1),
        ("'3.10'", "3.10"),
        ("${{ github.count }}", 3.0),
        ("'${{ github.list }}'", [1.0, 2.0]),
        ("n=${{ github.count }}", "n=3"),
        ("${{ github.nothing }}", None),
        ("[1, '${{ github.sha }}', {a: ~}]", [1.0, "abc", {"a": None}]),
        ("{1.0: a, '${{ github.name }}': b}", {"1": "a", "KEY": "b"}),
        ("echo '$HOME'", "echo '$HOME'"),
    ],
)
def test_values(text: str, expected: object) -> None:
    assert evaluate_node(node(text), SCOPE) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3.10", "3.1"),
        ("'3.10'", "3.10"),
        ("true", "true"),
        ("~", ""),
        ("1e3", "1000"),
        ("${{ github.count }}", "3"),
    ],
)
def test_where_text_is_taken_it_prints_as_on_github(text: str, expected: str) -> None:
    assert scalar_text(scalar(text), SCOPE) == expected


def test_a_mapping_of_texts() -> None:
    assert text_mapping(node("{V: 3.10, S: '${{ github.sha }}', E: }"), SCOPE) == {
        "V": "3.1",
        "S": "abc",
        "E": "",
    }
    assert text_mapping(node("${{ github.object }}"), SCOPE) == {"a": "1"}


def test_booleans_and_numbers_are_not_guessed() -> None:
    assert boolean(scalar("${{ github.on }}"), SCOPE) is True
    assert number(scalar("2.5"), SCOPE) == 2.5
    for text in ("'true'", "1", "~"):
        with pytest.raises(EvaluationError, match="Unexpected value"):
            boolean(scalar(text), SCOPE)
    for text in ("'5'", "true", "~"):
        with pytest.raises(EvaluationError, match="Unexpected value"):
            number(scalar(text), SCOPE)


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("{a: '${{ github }}'}", "A mapping was not expected", 10),
        ("{a: [b]}", "A sequence was not expected", 10),
        ("text", "Unexpected value 'text'", 6),
        ("{a: \"${{ fromJSON('{') }}\"}", "", 10),
        ("{'${{ insert }}': x}", "`${{ insert }}` is not carried out by Cloche yet", 7),
        ("{KEY: a, '${{ github.name }}': b}", "'KEY' is already defined", 15),
    ],
)
def test_errors_have_their_place(text: str, message: str, column: int) -> None:
    with pytest.raises(EvaluationError) as caught:
        text_mapping(node(text), SCOPE)
    assert message in caught.value.message
    assert caught.value.position is not None
    assert (caught.value.position.file, caught.value.position.column) == ("w.yml", column)


def test_what_is_not_known_yet_passes_through() -> None:
    def pending(arguments: list[Value]) -> NoReturn:
        raise Pending(tuple(str(argument) for argument in arguments))

    with pytest.raises(Pending):
        evaluate_node(node("${{ hashFiles('a') }}"), Scope({}, {"hashFiles": pending}))
