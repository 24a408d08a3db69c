"""The normalised form of a workflow, without GitHub's data: what each rule of it comes to."""

from __future__ import annotations

from typing import Any

import pytest

from cloche.workflow.parse import Rules
from cloche.workflow.reusable import read_unit
from cloche.workflow.template import template_of

HEAD = "on: push\njobs:\n  a:\n    runs-on: x\n"


def template(
    text: str, files: dict[str, str] | None = None, *, include_source: bool = False
) -> dict[str, Any]:
    source = files.get if files is not None else None
    return template_of(read_unit(text, "w.yml", source, Rules()), include_source=include_source)


def job(lines: str) -> dict[str, Any]:
    found: dict[str, Any] = template(HEAD + "".join(f"    {line}\n" for line in lines.splitlines()))["jobs"][
        0
    ]
    return found


def steps(*lines: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = job("steps:\n" + "\n".join(f"  - {line}" for line in lines))["steps"]
    return found


def test_the_least_there_is() -> None:
    assert template(HEAD) == {
        "events": {"push": {}},
        "jobs": [
            {"type": "job", "id": "a", "name": "a", "if": {"type": 3, "expr": "success()"}, "runs-on": "x"}
        ],
    }


@pytest.mark.parametrize(
    ("written", "token"),
    [
        ("3.10", "3.1"),
        ("0x1F", "31"),
        ("", ""),
        ("true", "true"),
        ("'x'", "x"),
        ("${{ 'it''s' }}", "it's"),
        ("${{ github.ref }}", {"type": 3, "expr": "github.ref"}),
        ("a'${{ 1 }}{", {"type": 3, "expr": "format('a''{0}{{', 1)"}),
    ],
)
def test_where_text_is_meant_everything_is_text(written: str, token: object) -> None:
    assert job(f"env:\n  A: {written}")["env"] == {"type": 2, "map": [{"Key": "A", "Value": token}]}


@pytest.mark.parametrize(
    ("written", "token"),
    [
        ("1", 1),
        ("1.5", 1.5),
        ("-0.0", 0),
        ("1e300", 1e300),
        (".inf", "Infinity"),
        ("-.inf", "-Infinity"),
        (".nan", "NaN"),
        ("~", None),
        ("true", True),
        ("[1]", {"type": 1, "seq": [1]}),
        ("{a: 1}", {"type": 2, "map": [{"Key": "a", "Value": 1}]}),
    ],
)
def test_where_anything_may_be_values_stay_what_they_are(written: str, token: object) -> None:
    strategy = job(f"strategy: {{matrix: {{v: [{written}]}}}}")["strategy"]
    assert strategy["map"][0]["Value"]["map"][0]["Value"]["seq"] == [token]


def test_steps_without_ids_get_them() -> None:
    found = steps(
        "run: a",
        "run: b",
        "{id: mine, run: c}",
        "uses: actions/checkout@v4",
        "uses: Actions/Checkout/sub@v4",
        "uses: ./here",
        "uses: docker://a/b:1",
        f"uses: docker://{'x' * 200}",
        f"uses: docker://{'x' * 200}",
    )
    assert [step["id"] for step in found] == [
        "__run",
        "__run_2",
        "mine",
        "__actions_checkout",
        "__Actions_Checkout_2",
        "__self",
        "__a_b_1",
        "__" + "x" * 98,
        "__" + "x" * 96 + "_2",
    ]


def test_steps_that_wait_have_a_name_and_no_condition() -> None:
    found = steps(
        "{id: s, run: a, background: true}", "wait: s", "wait-all:", "cancel: s", "parallel: [{run: b}]"
    )
    assert found[0]["background"] is True
    assert found[1:4] == [
        {"id": "__wait", "name": "Wait", "wait": ["s"]},
        {"id": "__wait-all", "name": "Wait for all", "wait-all": True},
        {"id": "__cancel", "name": "Cancel", "cancel": "s"},
    ]
    assert found[4]["parallel"][0]["run"] == "b"


def test_conditions_are_expressions() -> None:
    assert job("if: ${{ github.ref }}")["if"] == {"type": 3, "expr": "success() && (github.ref)"}
    assert steps("{run: a, if: always()}")[0]["if"] == {"type": 3, "expr": "always()"}


def test_permissions_reach_the_jobs_that_say_nothing() -> None:
    text = "permissions: {contents: read, issues: none}\n" + HEAD + "  b: {runs-on: x, permissions: {}}\n"
    found = template(text)
    assert found["permissions"] == {"contents": "read"}
    assert [one["permissions"] for one in found["jobs"]] == [{"contents": "read"}, {}]


def test_a_call_holds_what_it_calls() -> None:
    called = (
        "on:\n  workflow_call:\n    inputs: {i: {type: number}}\nenv: {A: b}\nconcurrency: g\n" + HEAD[9:]
    )
    caller = "on: push\njobs:\n  c: {uses: ./x.yml, with: {i: 1}, secrets: inherit}\n"
    found = template(caller, {"./x.yml": called})["jobs"][0]
    assert found["ref"] == "./x.yml"
    assert found["inherit-secrets"] is True
    assert found["needs"] == []
    assert found["embedded-concurrency"] == "g"
    assert found["input-values"]["map"] == [{"Key": "i", "Value": 1}]
    assert found["input-definitions"]["map"][0]["Key"] == "i"
    assert [one["id"] for one in found["jobs"]] == ["a"]


def test_source_gives_file_line_and_column() -> None:
    caller = "on: push\njobs:\n  c: {uses: ./x.yml}\n"
    called = (
        "on: workflow_call\n" + HEAD[9:] + "    timeout-minutes: 5\n    strategy: {matrix: {v: [~, true]}}\n"
    )
    found = template(caller, {"./x.yml": called}, include_source=True)
    assert found["file-table"] == ["w.yml", "./x.yml"]
    assert found["jobs"][0]["id"] == {"type": 0, "file": 1, "line": 3, "col": 3, "lit": "c"}
    inner = found["jobs"][0]["jobs"][0]
    assert inner["timeout-minutes"] == {"type": 6, "file": 2, "line": 5, "col": 22, "num": 5}
    values = inner["strategy"]["map"][0]["Value"]["map"][0]["Value"]["seq"]
    assert [value["type"] for value in values] == [7, 5]


def test_events_have_their_filters_and_inputs() -> None:
    text = """\
on:
  push: {branches: main, tags-ignore: [a, b]}
  schedule: [{cron: '0 0 * * *', timezone: UTC}]
  workflow_dispatch: {inputs: {a: , b: {type: boolean, default: true}, c: {default: 1, description: 2}}}
  workflow_call: {inputs: {a: {type: string}}, secrets: {s: {required: true}}}
"""
    found = template(text + HEAD[9:])
    assert found["events"] == {
        "push": {"branches": ["main"], "tags-ignore": ["a", "b"]},
        "schedule": [{"cron": "0 0 * * *", "timezone": "UTC"}],
        "workflow_dispatch": {
            "inputs": {
                "a": {"type": "string"},
                "b": {"type": "boolean", "default": True},
                "c": {"type": "string", "description": "2"},
            }
        },
        "workflow_call": {"inputs": {"a": {"type": "string"}}, "secrets": {"s": {"required": True}}},
    }
    assert found["input-types"] == {"a": "string", "b": "boolean", "c": "string"}
    assert template(f"on: [push, fork]\n{HEAD[9:]}")["events"] == {"push": {}, "fork": {}}
