import json
from typing import Any

import pytest

from cloche.check.values import eval_row


def answer(**row: Any) -> dict[str, Any]:
    return eval_row(json.dumps({"id": 1, **row}))


@pytest.mark.parametrize(
    ("row", "kind", "value", "text"),
    [
        ({"expr": "1.5 == 1.50"}, "Boolean", True, "true"),
        ({"expr": "github.n", "context": {"github": {"n": 3}}}, "Number", 3, "3"),
        ({"expr": "fromJSON('1e400')"}, "Number", None, "Infinity"),
        ({"expr": "fromJSON('[1, {\"a\": 2.5}]')"}, "Array", [1, {"a": 2.5}], "Array"),
        ({"expr": ""}, "Null", None, ""),
        ({"template": "a ${{ 1 }} b"}, "String", "a 1 b", "a 1 b"),
        ({"template": "${{ 1 }}"}, "Number", 1, "1"),
        ({"template": "plain"}, "String", "plain", "plain"),
        (
            {"expr": "success() && hashFiles('x')", "functions": {"success": True, "hashFiles": "abc"}},
            "String",
            "abc",
            "abc",
        ),
    ],
)
def test_values(row: dict[str, Any], kind: str, value: Any, text: str) -> None:
    assert answer(**row) == {"id": 1, "ok": True, "kind": kind, "value": value, "str": text}


@pytest.mark.parametrize(
    ("row", "phase", "message"),
    [
        ({"expr": "1 ="}, "lexing", "Unexpected symbol: '='"),
        ({"expr": "foo"}, "parsing", "Unrecognized named-value: 'foo'"),
        ({"expr": "github", "context": {"env": {}}}, "parsing", "Unrecognized named-value: 'github'"),
        ({"expr": "success()"}, "parsing", "Unrecognized function: 'success'"),
        ({"expr": "fromJSON('{')"}, "evaluation", "fromJSON"),
        ({"template": "${{ foo }}"}, "template", "Unrecognized named-value: 'foo'"),
        ({"template": "${{ env.x }}"}, "parsing", "Unrecognized named-value: 'env'"),
        ({"template": "${{ 1"}, "template", "The expression is not closed"),
        ({"expr": 1}, "input", "`expr` or `template`"),
        ({}, "input", "`expr` or `template`"),
        ({"expr": "1", "context": [1]}, "input", "objects"),
    ],
)
def test_errors_have_a_phase(row: dict[str, Any], phase: str, message: str) -> None:
    found = answer(**row)
    assert (found["ok"], found["phase"]) == (False, phase)
    assert message.lower() in found["message"].lower()
