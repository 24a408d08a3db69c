"""docs/compatibility.md tells of every key, context and function, truly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloche.errors import WorkflowError
from cloche.expressions.names import BUILT_IN, CONTEXTS, EXTENSIONS
from cloche.workflow.action import read_action
from cloche.workflow.definitions import JOB_FACTORY, STEP_KEYS, WORKFLOW_JOB, WORKFLOW_ROOT
from cloche.workflow.definitions_action import ACTION_ROOT
from cloche.workflow.definitions_on import EVENTS, FILTERS
from cloche.workflow.parse import parse_workflow
from cloche.workflow.schema import Anything, Definition, MappingValue, SequenceValue, options
from cloche.workflow.unsupported import JOB_KEYS, WORKFLOW_KEYS
from cloche.workflow.unsupported import STEP_KEYS as REFUSED_STEP_KEYS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/compatibility.md").read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| `(?P<key>[^`]+)` \| (?P<read>[^|]+) \| (?P<done>[^|]+) \| `(?P<test>[^`]+)` \|$", re.MULTILINE
)
ROWS = [
    (section.partition("\n")[0], match["key"], match["done"], match["test"])
    for section in PAGE.split("\n## ")[1:]
    for match in ROW.finditer(section)
]

STEPS = """\
      - {id: s, name: n, if: always(), uses: a/b@v1, with: {k: v}, env: {A: b}, timeout-minutes: 1}
      - {run: x, shell: sh, working-directory: d, continue-on-error: true, background: true}
      - {wait: s}
      - {wait-all: }
      - {cancel: s}
      - parallel: [{run: a}]
"""
CONTAINER = (
    "{image: x, options: o, env: {A: b}, ports: [80], volumes: ['v:/v'], "
    "credentials: {username: u, password: p}"
)
OTHER_EVENTS = [
    name for name in EVENTS if name not in {"push", "schedule", "workflow_call", "workflow_dispatch"}
]
PERMISSIONS = "\n".join(
    f"  {name}: {'write' if name == 'copilot-requests' else 'read' if name != 'id-token' else 'none'}"
    for name in WORKFLOW_ROOT.properties["permissions"].options[0].properties  # type: ignore[attr-defined] # a OneOf
)
EVERYTHING = f"""\
name: n
run-name: r
description: d
on:
{chr(10).join(f"  {name}:" for name in OTHER_EVENTS)}
  push: {{{", ".join(f"{name}: [x]" for name in FILTERS)}, reuse-previous-outcome: true}}
  schedule: [{{cron: '* * * * *', timezone: UTC}}]
  workflow_dispatch: {{inputs: {{a: {{description: d, type: choice, required: true, default: x, options: [x]}}}}}}
  workflow_call:
    inputs: {{a: {{description: d, type: string, required: false, default: x}}}}
    secrets: {{a: {{description: d, required: true}}}}
    outputs: {{a: {{description: d, value: x}}}}
env: {{A: b}}
defaults: {{run: {{shell: sh, working-directory: d}}}}
permissions:
{PERMISSIONS}
concurrency: {{group: g, cancel-in-progress: true, queue: max}}
jobs:
  one:
    name: n
    if: github.ref == 'x'
    permissions: read-all
    concurrency: g
    strategy: {{fail-fast: true, max-parallel: 1, matrix: {{v: [1], include: [{{w: 1}}], exclude: [{{v: 2}}]}}}}
    runs-on: {{group: g, labels: [x]}}
    timeout-minutes: 1
    cancel-timeout-minutes: 1
    continue-on-error: true
    container: {CONTAINER}}}
    services: {{a: {CONTAINER}, entrypoint: e, command: c}}}}
    env: {{A: b}}
    environment: {{name: n, url: u, deployment: true}}
    outputs: {{o: x}}
    defaults: {{run: {{shell: sh}}}}
    snapshot: {{image-name: i, if: always(), version: 1.*}}
    steps:
{STEPS}
  two: {{needs: one, uses: ./x.yml, with: {{a: 1}}, secrets: inherit}}
"""
ACTION_STEPS = """\
  steps:
    - {id: s, name: n, if: always(), run: x, shell: sh, working-directory: d, env: {A: b}, continue-on-error: true}
    - {uses: a/b@v1, with: {k: v}}
"""
ACTION = """\
name: a
description: b
author: c
inputs: {i: {description: d, required: true, default: e, deprecationMessage: f}}
outputs: {o: {description: d, value: v}}
branding: {icon: activity, color: red}
runs:
"""
DOCKER = "  {using: docker, image: i, entrypoint: e, args: [a], env: {A: b}, pre-entrypoint: p, post-entrypoint: q}\n"


def keys(*definitions: Definition) -> set[str]:
    """The well-known keys of mappings, of those among options too."""
    mappings = [one for each in definitions for one in options(each) if isinstance(one, MappingValue)]
    return {key for mapping in mappings for key in mapping.properties}


def all_keys(definition: Definition, seen: set[int]) -> set[str]:
    """Every well-known key at or below a definition."""
    found: set[str] = set()
    if isinstance(definition, Anything):
        return found
    for option in options(definition):
        if isinstance(option, SequenceValue):
            found |= all_keys(option.item_definition(), seen)
        if not isinstance(option, MappingValue) or id(option) in seen:
            continue
        seen.add(id(option))
        found |= set(option.properties)
        for value in (*option.properties.values(), *([option.loose_value] if option.loose_value else [])):
            found |= all_keys(value, seen)
    return found


def told(*sections: str) -> list[str]:
    return [key for section, key, _, _ in ROWS if section in sections]


def last(key: str) -> str:
    return key.rpartition(".")[2]


def test_every_key_of_a_workflow_has_a_row() -> None:
    sections = {section for section, _, _, _ in ROWS} - {"Contexts", "Functions", "action.yml"}
    assert {last(key) for key in told(*sections)} == all_keys(WORKFLOW_ROOT, set())
    assert set(told("Workflow")) == set(WORKFLOW_ROOT.properties)
    assert told("Events") == list(EVENTS)
    assert set(told("Jobs")) == keys(JOB_FACTORY, WORKFLOW_JOB)
    assert set(told("Steps")) == {*STEP_KEYS.properties, "wait-all", "parallel"}


def test_every_key_of_an_action_has_a_row() -> None:
    assert {last(key) for key in told("action.yml")} == all_keys(ACTION_ROOT, set())


def test_every_context_and_function_has_a_row() -> None:
    assert set(told("Contexts")) == CONTEXTS
    assert {name.lower() for name in told("Functions")} == {*BUILT_IN, *EXTENSIONS}


def test_no_row_stands_twice() -> None:
    named = [(section, key) for section, key, _, _ in ROWS]
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    ("section", "table"), [("Workflow", WORKFLOW_KEYS), ("Jobs", JOB_KEYS), ("Steps", REFUSED_STEP_KEYS)]
)
def test_what_is_refused_is_what_the_page_says(section: str, table: dict[str, str]) -> None:
    for _, key, done, _ in (row for row in ROWS if row[0] == section):
        if key in table:
            assert done == f"refused: `{key}` is not carried out by Cloche yet"
        elif key not in {"uses", "with", "secrets"}:
            assert done.startswith("yes")


@pytest.mark.parametrize(("key", "test"), sorted({(key, test) for _, key, _, test in ROWS}))
def test_the_test_that_a_row_names_is_about_its_key(key: str, test: str) -> None:
    text = (ROOT / test).read_text(encoding="utf-8")
    if (ROOT / test) == Path(__file__):
        text = (
            EVERYTHING
            + ACTION
            + ACTION_STEPS
            + DOCKER
            + PAGE.partition("## Contexts")[2].partition("## Functions")[0]
        )
    assert re.search(rf"(?<![\w-]){re.escape(last(key))}(?![\w-])|{last(key).replace('-', '_')}", text)


def test_a_workflow_with_every_key_is_taken_and_refused_by_name() -> None:
    parse_workflow(EVERYTHING, "w.yml", allow_unsupported=True)
    words = set(re.findall(r"[\w-]+", EVERYTHING))
    assert all_keys(WORKFLOW_ROOT, set()) <= words
    with pytest.raises(WorkflowError) as caught:
        parse_workflow(EVERYTHING, "w.yml")
    messages = {one.message for one in caught.value.diagnostics}
    for key in (*WORKFLOW_KEYS, *JOB_KEYS, *REFUSED_STEP_KEYS):
        assert f"`{key}` is not carried out by Cloche yet" in messages


@pytest.mark.parametrize(
    "runs",
    [
        f"  using: composite\n{ACTION_STEPS}",
        "  {using: node24, main: m, pre: p, pre-if: always(), post: q, post-if: always()}\n",
        DOCKER,
    ],
)
def test_an_action_with_every_key_is_taken(runs: str) -> None:
    assert read_action(ACTION + runs, "action.yml").inputs == ("i",)
