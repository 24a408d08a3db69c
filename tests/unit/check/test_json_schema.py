"""The schemas for editors are those that check, and take what GitHub takes."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from cloche.check.json_schema import SCHEMAS, schema_of, schema_text
from cloche.workflow.templates import plain_value
from cloche.workflow.yaml import read

FOLDER = Path(__file__).parents[3] / "schemas"
CONFORMANCE = os.environ.get("CLOCHE_CONFORMANCE")
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
WORKFLOW = schema_of(*SCHEMAS["workflow.json"])
ACTION = schema_of(*SCHEMAS["action.json"])


def fits(value: Any, schema: Any, root: dict[str, Any]) -> bool:
    """The keywords of JSON Schema that the generator uses, as the standard defines them."""
    if schema is False:
        return False
    if "$ref" in schema:
        return fits(value, root["definitions"][schema["$ref"].rpartition("/")[2]], root)
    return all(
        (
            all(fits(value, one, root) for one in schema.get("allOf", ())),
            "anyOf" not in schema or any(fits(value, one, root) for one in schema["anyOf"]),
            "enum" not in schema or value in schema["enum"],
            "type" not in schema or is_of(value, schema["type"]),
            not isinstance(value, str) or len(value) >= schema.get("minLength", 0),
            not isinstance(value, str) or re.search(schema.get("pattern", ""), value),
            not isinstance(value, list) or all(fits(one, schema.get("items", {}), root) for one in value),
            not isinstance(value, dict) or members_fit(value, schema, root),
        )
    )


def is_of(value: Any, types: str | list[str]) -> bool:
    names = [types] if isinstance(types, str) else types
    if isinstance(value, float):
        return "number" in names
    return any(isinstance(value, TYPES[name]) for name in names if name in TYPES)


def members_fit(value: dict[str, Any], schema: dict[str, Any], root: dict[str, Any]) -> bool:
    known = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    for name, member in value.items():
        found = [one for pattern, one in patterns.items() if re.search(pattern, name)]
        one = known[name] if name in known else found[0] if found else schema.get("additionalProperties", {})
        if not fits(member, one, root):
            return False
    return set(schema.get("required", ())) <= set(value)


def takes(text: str, root: dict[str, Any] = WORKFLOW) -> bool:
    return fits(plain_value(read(text, "w.yml")), root, root)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_files_are_current(name: str) -> None:
    written = (FOLDER / name).read_text(encoding="utf-8")
    assert written == schema_text(name), "python -m cloche.check.json_schema schemas"


GOOD = "on: push\njobs:\n  a:\n    runs-on: [x, '${{ matrix.y }}']\n    steps:\n      - run: 1\n"


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (GOOD, True),
        (GOOD + "    env: ${{ fromJSON('{}') }}\n", True),
        (GOOD + "    timeout-minutes: ${{ 1 }}\n", True),
        (GOOD + "      - parallel: [{run: x}]\n", True),
        (GOOD.replace("runs-on", "run-on"), False),
        (GOOD + "    timeout-minutes: soon\n", False),
        (GOOD + "      - parallel: [{rum: x}]\n", False),
        (GOOD + "permissions: {contents: all}\n", False),
        ("on: push\n", False),
    ],
)
def test_what_a_workflow_may_say(text: str, good: bool) -> None:  # noqa: FBT001 - a row's column
    assert takes(text) is good


def test_what_an_action_may_say() -> None:
    action = "name: a\ndescription: b\nruns: {using: node24, main: x}\n"
    assert takes(action, ACTION)
    assert not takes(action.replace("main", "mane"), ACTION)


@pytest.mark.skipif(not CONFORMANCE, reason="CLOCHE_CONFORMANCE is not set: no workflows of GitHub's to try")
def test_what_github_takes_fits() -> None:
    rows = [json.loads(line) for line in Path(str(CONFORMANCE), "workflows.jsonl").read_text().splitlines()]
    accepted = [row for row in rows if "jobs" in row["expect"]]
    assert [row["case"] for row in accepted if not takes(row["content"])] == []
