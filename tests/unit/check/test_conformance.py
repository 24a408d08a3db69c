"""Rows of GitHub's own test data in, its verdicts, words, places and templates out."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cloche.check.batch import check_row
from cloche.check.values import eval_row

FOLDER = os.environ.get("CLOCHE_CONFORMANCE")
if not FOLDER:
    pytest.skip("CLOCHE_CONFORMANCE is not set: no conformance data to compare with", allow_module_level=True)

_OUTDATED = {"errors-anchor-tag.yml"}  # anchors are allowed now
_TYPESCRIPT_ONLY = {"events-mapping.yml"}  # its template has no `input-types`, which the C# parser's has


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(str(FOLDER)) / name).read_text().splitlines()]


WORKFLOWS = [row for row in rows("workflows.jsonl") if row["case"] not in _OUTDATED]
EXPRESSIONS = rows("expressions.jsonl")
STARTERS = [
    row for row in rows("starter/verdicts.jsonl") if (Path(FOLDER) / "starter" / row["path"]).exists()
]


@pytest.mark.parametrize("row", WORKFLOWS, ids=lambda row: row["case"])
def test_workflows(row: dict[str, Any]) -> None:
    answer = check_row(json.dumps(row))
    expected = row["expect"]
    assert answer["errors"] == [error["Message"] for error in expected.get("errors", [])]
    if "errors" in expected:
        return
    template = answer["template"]
    if "events" not in expected:
        del template["events"]
    if row["case"] in _TYPESCRIPT_ONLY:
        del template["input-types"]
    assert template == expected


@pytest.mark.parametrize("row", STARTERS, ids=lambda row: row["path"])
def test_starter_workflows(row: dict[str, Any]) -> None:
    answer = check_row(str(Path(str(FOLDER)) / "starter" / row["path"]), template=False)
    assert (answer["ok"], answer["jobs"]) == (row["ok"], row["jobs"])


@pytest.mark.parametrize("row", EXPRESSIONS, ids=lambda row: row["id"])
def test_expressions(row: dict[str, Any]) -> None:
    answer = eval_row(json.dumps(row))
    assert answer["id"] == row["id"]
    if row["expect_err"]:
        assert answer["phase"] == row["expect_err"]["kind"]
        assert row["expect_err"]["value"] in answer["message"]
    else:
        assert (answer["kind"], answer["value"]) == (row["expect"]["kind"], row["expect"]["value"])
