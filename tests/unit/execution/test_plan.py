"""What is settled before any VM is asked for."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from cloche.config import Settings
from cloche.errors import UsageError, WorkflowError
from cloche.execution.gitstate import EventInfo
from cloche.execution.plan import Plan, make_plan
from cloche.execution.request import RunRequest
from cloche.workflow.parse import parse_workflow


def plan(text: str, **request: Any) -> Plan:
    workflow = parse_workflow(textwrap.dedent(text), "ci.yml")
    asked = RunRequest(**{"root": Path("/nowhere"), "event": EventInfo("push"), **request})
    return make_plan(
        workflow, asked, {"github": {"event_name": "push"}, "vars": dict(asked.vars), "inputs": {}}
    )


def job(keys: str) -> str:
    return f"on: push\njobs:\n  a:\n    {keys}\n    steps: [{{run: x}}]\n"


@pytest.mark.parametrize(
    "label", ["ubuntu-latest", "Ubuntu-22.04", "[ubuntu-latest]", "{labels: ubuntu-24.04}"]
)
def test_labels_that_an_image_serves(label: str) -> None:
    assert plan(job(f"runs-on: {label}")).image == "default"


@pytest.mark.parametrize(
    ("label", "missing"),
    [
        ("windows-latest", "windows-latest"),
        ("macos-14", "macos-14"),
        ("[ubuntu-latest, gpu]", "gpu"),
        ("${{ vars.WHERE }}", "moon"),
    ],
)
def test_labels_that_no_image_serves_are_refused_with_their_place(label: str, missing: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        plan(job(f"runs-on: {label}"), vars={"WHERE": "moon"})

    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.message == f"Job 'a' cannot run: no image serves the label '{missing}'"
    assert (diagnostic.position.line, diagnostic.position.column) == (4, 14)
    assert diagnostic.hint
    assert "--skip-unsupported" in diagnostic.hint
    assert caught.value.exit_code == 2


def test_skipping_what_no_image_serves_needs_no_image() -> None:
    assert plan(job("runs-on: windows-latest"), skip_unsupported=True).image is None


def test_every_leg_is_looked_at() -> None:
    with pytest.raises(WorkflowError, match="no image serves the label 'windows-latest'"):
        plan(job("runs-on: ${{ matrix.os }}\n    strategy: {matrix: {os: [ubuntu-latest, windows-latest]}}"))


def test_legs_that_were_not_chosen_are_not() -> None:
    text = job("runs-on: ${{ matrix.os }}\n    strategy: {matrix: {os: [ubuntu-latest, windows-latest]}}")

    assert plan(text, matrix={"os": "ubuntu-latest"}).image == "default"


def test_legs_that_nobody_has_cannot_be_chosen() -> None:
    with pytest.raises(UsageError, match="no leg of any job has os: beos"):
        plan(job("runs-on: ubuntu-latest\n    strategy: {matrix: {os: [a, b]}}"), matrix={"os": "beos"})


@pytest.mark.parametrize("condition", ["github.event_name == 'release'", "false", "failure() && false"])
def test_a_job_that_never_runs_needs_no_image(condition: str) -> None:
    assert plan(job(f"runs-on: windows-latest\n    if: {condition}")).image is None


@pytest.mark.parametrize("condition", ["always()", "failure()", "cancelled()", "github.event_name == 'push'"])
def test_a_job_that_may_run_does(condition: str) -> None:
    with pytest.raises(WorkflowError):
        plan(job(f"runs-on: windows-latest\n    if: {condition}"))


def test_what_earlier_jobs_decide_is_left_for_later() -> None:
    text = """
        on: push
        jobs:
          a: {runs-on: ubuntu-latest, steps: [{run: x}]}
          b: {runs-on: "${{ needs.a.outputs.os }}", needs: a, steps: [{run: x}]}
          c:
            runs-on: ${{ matrix.os }}
            needs: a
            strategy: {matrix: "${{ fromJSON(needs.a.outputs.m) }}"}
            steps: [{run: x}]
        """

    assert plan(text, matrix={"os": "x"}).image == "default"


def test_labels_that_say_nothing_about_the_image() -> None:
    assert plan(job("runs-on: [self-hosted, linux]")).image == "default"


def test_labels_that_lead_to_different_images() -> None:
    image_for = Settings(runs_on={"gpu": "cuda"}).image_for
    with pytest.raises(WorkflowError, match="its labels lead to different images"):
        plan(job("runs-on: [ubuntu-latest, gpu]"), image_for=image_for)


def test_one_vm_has_one_image() -> None:
    text = """
        on: push
        jobs:
          a: {runs-on: ubuntu-latest, steps: [{run: x}]}
          b: {runs-on: debian, steps: [{run: x}]}
        """
    image_for = Settings(runs_on={"debian": "bookworm"}).image_for

    with pytest.raises(WorkflowError, match="needs the image 'bookworm', but job 'a' needs 'default'"):
        plan(text, image_for=image_for)
    assert plan(text, image_for=image_for, jobs=("b",)).image == "bookworm"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("runs-on: ${{ vars.NONE }}", "is neither a label nor a list"),
        ("runs-on: ${{ fromJSON('nope') }}", "Error parsing fromJson"),
        ("runs-on: ubuntu-latest\n    strategy: {matrix: \"${{ fromJSON('[1]') }}\"}", "is no mapping"),
        (
            "runs-on: ubuntu-latest\n    strategy: {matrix: {n: \"${{ fromJSON('[]') }}\"}}",
            "does not contain any values",
        ),
    ],
)
def test_what_comes_out_wrong_is_named_with_its_place(keys: str, message: str) -> None:
    with pytest.raises(WorkflowError, match=message) as caught:
        plan(job(keys))

    assert caught.value.diagnostics[0].position.file == "ci.yml"


def test_everything_wrong_is_told_at_once() -> None:
    with pytest.raises(WorkflowError) as caught:
        plan(
            """
            on: push
            jobs:
              a: {runs-on: beos, steps: [{run: x}]}
              b: {runs-on: [amiga], steps: [{run: x}]}
            """
        )

    assert len(caught.value.diagnostics) == 2


def test_chosen_jobs_come_with_those_they_need() -> None:
    text = """
        on: push
        jobs:
          c: {runs-on: ubuntu-latest, needs: b, steps: [{run: x}]}
          b: {runs-on: ubuntu-latest, needs: a, steps: [{run: x}]}
          a: {runs-on: ubuntu-latest, steps: [{run: x}]}
          z: {runs-on: beos, steps: [{run: x}]}
        """

    assert list(plan(text, jobs=("b",)).jobs) == ["b", "a"]
