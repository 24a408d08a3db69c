"""What Cloche refuses by name and place, with advice."""

from __future__ import annotations

import pytest

from cloche.errors import Diagnostic, WorkflowError
from cloche.workflow.parse import parse_workflow
from cloche.workflow.unsupported import JOB_KEYS, STEP_KEYS, WORKFLOW_KEYS


def refusals(text: str) -> list[Diagnostic]:
    parse_workflow(text, "w.yml", allow_unsupported=True)
    with pytest.raises(WorkflowError) as caught:
        parse_workflow(text, "w.yml")
    return list(caught.value.diagnostics)


def refusal(text: str) -> str:
    found = refusals(text)
    assert len(found) == 1
    assert found[0].hint
    return f"{found[0].position.line}:{found[0].position.column} {found[0].message}"


def job(line: str, rest: str = "runs-on: x") -> str:
    return f"on: push\njobs:\n  a:\n    {line}\n    {rest}\n"


def step(line: str) -> str:
    return job("runs-on: x", f"steps:\n      - {line}")


VALUES = {
    "cancel-timeout-minutes": "5",
    "concurrency": "group",
    "container": "debian",
    "environment": "production",
    "services": "{redis: redis}",
    "snapshot": "image",
    "uses": "./.github/workflows/other.yml",
    "background": "true",
    "cancel": "server",
    "wait": "server",
    "wait-all": "",
    "parallel": "[{run: a}]",
}


def test_every_refused_key_of_a_workflow() -> None:
    for key in WORKFLOW_KEYS:
        text = f"on: push\njobs: {{a: {{runs-on: x}}}}\n{key}: {VALUES[key]}\n"
        assert refusal(text) == f"3:1 `{key}` is not carried out by Cloche yet"


@pytest.mark.parametrize("key", JOB_KEYS)
def test_every_refused_key_of_a_job(key: str) -> None:
    text = job(f"{key}: {VALUES[key]}", "name: a" if key == "uses" else "runs-on: x")
    assert refusal(text) == f"4:5 `{key}` is not carried out by Cloche yet"


@pytest.mark.parametrize("key", STEP_KEYS)
def test_every_refused_key_of_a_step(key: str) -> None:
    known = "{id: server, run: a}\n      - "
    text = step(known + f"{key}: {VALUES[key]}" + ("\n        run: a" if key == "background" else ""))
    assert refusal(text) == f"7:9 `{key}` is not carried out by Cloche yet"


def test_background_steps_are_unknown_where_github_has_them_switched_off() -> None:
    with pytest.raises(WorkflowError, match="Unexpected value 'wait'"):
        parse_workflow(step("wait: x"), "w.yml", background_steps=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (job("runs-on: {group: g}", "name: a"), "4:15 `runs-on.group` is not"),
        (job("strategy: ${{ fromJSON('{}') }}"), "4:15 `strategy` given as one expression is not"),
        (job("strategy: {'${{ github.sha }}': 1}"), "4:16 An expression as a key of `strategy` is not"),
        (job("defaults: {run: '${{ fromJSON(1) }}'}"), "4:21 `defaults.run` given as one expression is not"),
        (job("env: {'${{ insert }}': '${{ fromJSON(1) }}'}"), "4:11 `${{ insert }}` is not"),
        (step("{uses: a/b@c}"), "6:16 The action `a/b@c` is not"),
        (step("{uses: ./local}"), "6:16 The action `./local` is not"),
        (step("{uses: docker://alpine}"), "6:16 The action `docker://alpine` is not"),
        (step("{uses: actions/checkout/sub@v4}"), "6:16 The action `actions/checkout/sub@v4` is not"),
        (step("{uses: actions/checkout@v4, with: {ref: main}}"), "6:44 `ref` of actions/checkout is not"),
        (step("{uses: actions/checkout@v4, with: {Token: x}}"), "6:44 `token` of actions/checkout is not"),
        (
            step("{uses: actions/checkout@v4, with: {lfs: true}}"),
            "6:49 `lfs` of actions/checkout, other than false,",
        ),
        (step("{uses: actions/checkout@v4, with: {fetch-dept: 0}}"), "6:44 actions/checkout has no input"),
        (
            step("{uses: actions/checkout@v4, with: '${{ fromJSON(1) }}'}"),
            "6:43 `with` given as one expression is",
        ),
        (step("{run: a, shell: bahs}"), "6:25 Invalid shell option."),
        (f"defaults: {{run: {{shell: bahs}}}}\n{job('runs-on: x', 'name: a')}", "1:25 Invalid shell option."),
        (
            "on: {push: {paths: a, paths-ignore: b}}\njobs: {a: {runs-on: x}}",
            "1:23 You may only define one of `paths` and `paths-ignore`",
        ),
        (
            "on: {push: {branches: ['[']}}\njobs: {a: {runs-on: x}}",
            "1:24 Invalid filter pattern: in the pattern '['",
        ),
    ],
)
def test_what_depends_on_a_value(text: str, expected: str) -> None:
    assert refusal(text).startswith(expected)


@pytest.mark.parametrize(
    "line",
    [
        "{uses: Actions/Checkout@v4, with: {fetch-depth: 0, path: a, clean: true}}",
        "{uses: actions/checkout@v4, with: {persist-credentials: false, show-progress: '${{ true }}'}}",
        "{uses: actions/checkout@v4, with: {submodules: false, lfs: 'false', ref: ''}}",
        "{uses: actions/checkout@0123456789abcdef, with: {set-safe-directory: true, fetch-tags: true}}",
        "{run: a, shell: 'perl {0}'}",
        "{run: a, shell: pwsh}",
    ],
)
def test_what_is_carried_out(line: str) -> None:
    parse_workflow(step(line), "w.yml")
