"""GitHub's own verdicts, and its words and places for what is wrong."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloche.errors import WorkflowError
from cloche.workflow.nodes import Mapping, Node
from cloche.workflow.parse import parse_workflow
from cloche.workflow.templates import has_expression, plain_value
from cloche.workflow.yaml import Limits

if TYPE_CHECKING:
    from cloche.workflow.model import Trigger, Workflow

FOLDER = os.environ.get("CLOCHE_CONFORMANCE")
if not FOLDER:
    pytest.skip("CLOCHE_CONFORMANCE is not set: no conformance data to compare with", allow_module_level=True)

_MESSAGE = re.compile(
    r".*?\.ya?ml(?: \(Line: (?P<line>\d+), Col: (?P<column>\d+)\))?: (?P<text>.*)", re.DOTALL
)
_OUTDATED = {"errors-anchor-tag.yml"}  # anchors are allowed now


def rows(name: str) -> list[dict[str, Any]]:
    lines = (Path(str(FOLDER)) / name).read_text().splitlines()
    return [json.loads(line) for line in lines]


def comparable(row: dict[str, Any]) -> bool:
    """Whether the verdict is about this file alone; those with called files are judged in tests/unit/check."""
    return row["case"] not in _OUTDATED and not (row["files"] and "errors" in row["expect"])


CASES = [row for row in rows("workflows.jsonl") if comparable(row)]
STARTERS = [
    row for row in rows("starter/verdicts.jsonl") if (Path(FOLDER) / "starter" / row["path"]).exists()
]


def parse(row: dict[str, Any]) -> Workflow:
    options = row["options"]
    defaults = Limits()
    limits = Limits(
        characters=options.get("max-file-size", defaults.characters),
        depth=options.get("max-depth", defaults.depth),
    )
    background = bool(row["features"].get("allowBackgroundSteps"))
    return parse_workflow(
        row["content"], row["name"], allow_unsupported=True, background_steps=background, limits=limits
    )


@pytest.mark.parametrize(
    "row", [row for row in CASES if "errors" in row["expect"]], ids=lambda row: row["case"]
)
def test_errors(row: dict[str, Any]) -> None:
    with pytest.raises(WorkflowError) as caught:
        parse(row)
    wanted = []
    for error in row["expect"]["errors"]:
        match = _MESSAGE.fullmatch(error["Message"])
        assert match
        wanted.append((int(match["line"] or 0), int(match["column"] or 0), match["text"]))
    found = [
        (d.position.line, d.position.column, d.message)
        if any(line for line, _, _ in wanted)
        else (0, 0, d.message)
        for d in caught.value.diagnostics
    ]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize(
    "row", [row for row in CASES if "jobs" in row["expect"]], ids=lambda row: row["case"]
)
def test_templates(row: dict[str, Any]) -> None:
    workflow = parse(row)
    expected = {literal(job["id"]): job for job in row["expect"]["jobs"]}
    assert list(workflow.jobs) == list(expected)
    for id_, job in workflow.jobs.items():
        wanted = expected[id_]
        assert list(job.needs) == [literal(need) for need in wanted.get("needs", [])]
        assert job.condition.expression == wanted["if"]["expr"]
        assert len(job.steps) == len(wanted.get("steps", []))
        for step, wanted_step in zip(job.steps, wanted.get("steps", []), strict=True):
            assert (step.run is None, step.uses is None) == (
                "run" not in wanted_step,
                "uses" not in wanted_step,
            )
            if "if" in wanted_step:
                assert (step.condition.expression if step.condition else "success()") == wanted_step["if"][
                    "expr"
                ]
        matrix = job.strategy.matrix if job.strategy else None
        if matrix is not None and not has_expression(matrix):
            assert json_ready(plain_value(matrix)) == matrix_of(wanted["strategy"])
    for name, event in row["expect"].get("events", {}).items():
        check_event(workflow.triggers[name], event)


def literal(value: Any) -> Any:
    return value["lit"] if isinstance(value, dict) else value


def json_ready(value: Any) -> Any:
    """As the data writes it: numbers without a point where they need none, names for what JSON lacks."""
    if isinstance(value, dict):
        return {key: json_ready(item) for key, item in value.items()}
    if isinstance(value, list):
        return [json_ready(item) for item in value]
    special = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}
    return special.get(str(value), value) if isinstance(value, float) else value


def untokened(token: Any) -> Any:
    if not isinstance(token, dict):
        return token
    if "seq" in token:
        return [untokened(item) for item in token["seq"]]
    return {entry["Key"]: untokened(entry["Value"]) for entry in token["map"]}


def matrix_of(strategy: Any) -> Any:
    return untokened(strategy)["matrix"]


def check_event(trigger: Trigger, event: dict[str, Any]) -> None:
    for key in ("types", "branches", "branches-ignore", "tags", "tags-ignore", "paths", "paths-ignore"):
        assert list(getattr(trigger, key.replace("-", "_"))) == event.get(key, [])
    assert [key.text for key, _ in trigger.inputs or ()] == list(event.get("inputs", {}))


@pytest.mark.parametrize("row", STARTERS, ids=lambda row: row["path"])
def test_starter_workflows(row: dict[str, Any]) -> None:
    text = (Path(str(FOLDER)) / "starter" / row["path"]).read_bytes()
    if not row["ok"]:
        with pytest.raises(WorkflowError):
            parse_workflow(text, row["path"], allow_unsupported=True)
        return
    workflow = parse_workflow(text, row["path"], allow_unsupported=True)
    found = [
        {
            "id": id_,
            "needs": list(job.needs),
            "steps": len(job.steps),
            "if": job.condition.expression,
            "matrix": matrix_keys(job.strategy.matrix if job.strategy else None),
        }
        for id_, job in workflow.jobs.items()
    ]
    keys = ("id", "needs", "steps", "if", "matrix")
    assert found == [{key: job[key] for key in keys} for job in row["jobs"]]


def matrix_keys(matrix: Node | None) -> object:
    if matrix is None:
        return None
    return [key.text for key, _ in matrix] if isinstance(matrix, Mapping) else "expression"
