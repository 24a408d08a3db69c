"""Which events run a workflow."""

from __future__ import annotations

import pytest

from cloche.workflow.parse import parse_workflow
from cloche.workflow.triggers import TriggerEvent, matches


def runs(on: str, event: TriggerEvent) -> bool:
    return matches(parse_workflow(f"on: {on}\njobs: {{a: {{runs-on: x}}}}\n", "w.yml"), event)


def push(ref: str | None, *paths: str) -> TriggerEvent:
    return TriggerEvent("push", ref=ref, changed_paths=paths or None)


MAIN = push("refs/heads/main")
TAG = push("refs/tags/v1")


@pytest.mark.parametrize(
    ("on", "event", "expected"),
    [
        ("push", MAIN, True),
        ("[push, pull_request]", MAIN, True),
        ("pull_request", MAIN, False),
        ("{push: }", TAG, True),
        ("{push: {branches: main}}", MAIN, True),
        ("{push: {branches: main}}", TAG, False),
        ("{push: {branches: ['*', '!main']}}", MAIN, False),
        ("{push: {branches-ignore: [ma*]}}", MAIN, False),
        ("{push: {branches-ignore: [other]}}", MAIN, True),
        ("{push: {branches-ignore: [other]}}", TAG, False),
        ("{push: {tags: 'v*'}}", TAG, True),
        ("{push: {tags: 'v*'}}", MAIN, False),
        ("{push: {tags-ignore: 'v*'}}", TAG, False),
        ("{push: {branches: other, tags: 'v*'}}", TAG, True),
        ("{push: {branches: main}}", push("refs/heads/a/b"), False),
        ("{push: {branches: main}}", push(None), True),
    ],
)
def test_push(on: str, event: TriggerEvent, *, expected: bool) -> None:
    assert runs(on, event) is expected


@pytest.mark.parametrize(
    ("on", "event", "expected"),
    [
        ("{push: {paths: 'src/**'}}", push("refs/heads/main", "src/a", "README.md"), True),
        ("{push: {paths: 'src/**'}}", push("refs/heads/main", "README.md"), False),
        ("{push: {paths-ignore: '**.md'}}", push("refs/heads/main", "README.md"), False),
        ("{push: {paths-ignore: '**.md'}}", push("refs/heads/main", "README.md", "a"), True),
        ("{push: {paths: 'src/**'}}", MAIN, True),
        ("{push: {paths: 'src/**', tags: 'v*'}}", push("refs/tags/v1", "README.md"), True),
        ("{push: {paths: 'src/**', branches: other}}", push("refs/heads/main", "src/a"), False),
    ],
)
def test_paths(on: str, event: TriggerEvent, *, expected: bool) -> None:
    assert runs(on, event) is expected


@pytest.mark.parametrize(
    ("on", "action", "base", "expected"),
    [
        ("pull_request", "opened", "main", True),
        ("pull_request", "labeled", "main", False),
        ("pull_request", None, "main", True),
        ("{pull_request: {types: [labeled]}}", "labeled", "main", True),
        ("{pull_request: {types: labeled}}", "opened", "main", False),
        ("{pull_request: {branches: main}}", "opened", "main", True),
        ("{pull_request: {branches: main}}", "opened", "refs/heads/main", True),
        ("{pull_request: {branches: main}}", "opened", "other", False),
        ("{pull_request: {branches: main}}", "opened", None, True),
    ],
)
def test_pull_requests(on: str, action: str | None, base: str | None, *, expected: bool) -> None:
    event = TriggerEvent("pull_request", action=action, ref="refs/pull/1/merge", base_ref=base)
    assert runs(on, event) is expected


def test_other_events_have_all_types_unless_told() -> None:
    assert runs("issues", TriggerEvent("issues", action="labeled"))
    assert not runs("{issues: {types: opened}}", TriggerEvent("issues", action="labeled"))
    assert runs("{create: {branches: other}}", TriggerEvent("create", ref="refs/heads/main"))
    assert runs("{workflow_run: {workflows: [CI], branches: main}}", TriggerEvent("workflow_run", ref="main"))
    assert not runs(
        "{workflow_run: {workflows: [CI], branches: main}}", TriggerEvent("workflow_run", ref="x")
    )
