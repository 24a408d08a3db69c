"""GitHub's own cases: what each expression is worth, or how it is refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cloche.expressions import (
    EvaluationError,
    ExpressionError,
    LexingError,
    ParsingError,
    Scope,
    kind,
    parse,
)

FOLDER = os.environ.get("CLOCHE_CONFORMANCE")
KINDS = {LexingError: "lexing", ParsingError: "parsing", EvaluationError: "evaluation"}


def rows() -> list[dict[str, Any]]:
    if not FOLDER:
        return []
    lines = (Path(FOLDER) / "expressions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


CASES = rows()


def outcome(case: dict[str, Any]) -> tuple[str, Any]:
    try:
        expression = parse(case["expr"], contexts=case["context"], functions=())
        value = expression.evaluate(Scope(case["context"]))
    except ExpressionError as error:
        return KINDS[type(error)], str(error)
    return kind(value), value


@pytest.mark.skipif(not CASES, reason="CLOCHE_CONFORMANCE does not name the folder of conformance data")
@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_means_what_github_says(case: dict[str, Any]) -> None:
    what, value = outcome(case)

    if case["expect_err"]:
        assert what == case["expect_err"]["kind"]
        assert case["expect_err"]["value"] in value
    else:
        assert (what, value) == (case["expect"]["kind"], case["expect"]["value"])
