"""What may be changed of a workflow that has been carried out in part, and what may not."""

from __future__ import annotations

import pytest

from cloche.execution.sameness import first_change, parts
from cloche.workflow.parse import parse_workflow

WORKFLOW = """\
name: CI
on: push
env: {A: 1, B: two}
jobs:
  lint:
    runs-on: ubuntu-latest
    outputs: {o: "${{ steps.s.outputs.o }}"}
    steps:
      - id: s
        run: make lint
  test:
    needs: lint
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - name: Build
        run: make
        env: {X: "1"}
      - name: Test
        run: make test
      - run: make report
  deploy:
    runs-on: ubuntu-latest
    steps:
      - run: make deploy
"""


def change(old: str, new: str, *, ended: tuple[str, ...] = ("lint",), steps: int = 2) -> str | None:
    """What is found when ``old`` became ``new`` once ``steps`` of the job test had run."""
    assert old in WORKFLOW
    before = parts(parse_workflow(WORKFLOW, "ci.yml"), ended, "test", steps)
    found = first_change(before, parse_workflow(WORKFLOW.replace(old, new, 1), "ci.yml"))
    return found.what if found else None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("make test", "make tests"),
        ("      - run: make report\n", ""),
        ("      - run: make report\n", "      - run: make more\n      - run: make report\n"),
        ("make deploy", "make nothing"),
        ("name: Build", "name: Build it all"),
        ("run: make\n", "run: 'make' # all\n"),
        ("env: {A: 1, B: two}", "env:\n  # first\n  B: two\n  A: 1.0"),
        ("on: push", "on: [push, pull_request]"),
        ("  deploy:\n", "  more:\n    runs-on: ubuntu-latest\n    steps: [{run: true}]\n  deploy:\n"),
        ("    needs: lint\n", "    needs: lint\n    timeout-minutes: 5\n"),
        ("    needs: lint\n", "    needs: lint\n    outputs: {a: b}\n"),
    ],
)
def test_what_has_not_run_and_how_it_is_written_may_change(old: str, new: str) -> None:
    assert change(old, new) is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("run: make\n", "run: make -j\n", "the `run` of step 2 'Build' of job 'test'"),
        ('{X: "1"}', '{X: "2"}', "the `env` of step 2 'Build' of job 'test'"),
        ("checkout@v4", "checkout@v3", "the `uses` of step 1 of job 'test'"),
        ("      - uses: actions/checkout@v4\n", "", "the `run` of step 1 'Build' of job 'test'"),
        ("{A: 1, B: two}", "{A: 2, B: two}", "the workflow's `env`"),
        ("name: CI", "name: CI 2", "the workflow's `name`"),
        ("make lint", "make lint2", "the `run` of step 1 of job 'lint'"),
        ("outputs.o }}", "outputs.p }}", "the `outputs` of job 'lint'"),
        ("    needs: lint\n", "    needs: [lint]\n    env: {N: 1}\n", "the `env` of job 'test'"),
        ("    needs: lint\n", "    if: always()\n    needs: lint\n", "the `if` of job 'test'"),
        ("  lint:\n", "  lint2:\n", "job 'lint', which is gone"),
    ],
)
def test_what_has_run_may_not(old: str, new: str, said: str) -> None:
    text = new.replace("needs: lint", "needs: lint2") if "lint2:" in new else new
    if "lint2:" in new:  # who needs it follows
        before = parts(parse_workflow(WORKFLOW, "ci.yml"), ["lint"], "test", 2)
        now = WORKFLOW.replace(old, text, 1).replace("needs: lint", "needs: lint2")
        found = first_change(before, parse_workflow(now, "ci.yml"))
        assert found is not None
        assert found.what == said
    else:
        assert change(old, new) == said


def test_a_step_that_is_gone_is_named_with_its_job() -> None:
    before = parts(parse_workflow(WORKFLOW, "ci.yml"), ["lint"], "test", 4)
    now = parse_workflow(WORKFLOW.replace("      - run: make report\n", ""), "ci.yml")
    found = first_change(before, now)
    assert found is not None
    assert found.what == "step 4 of job 'test', which is gone"
    assert str(found.position).startswith("ci.yml:11:")


def test_where_it_is_now_is_told() -> None:
    before = parts(parse_workflow(WORKFLOW, "ci.yml"), ["lint"], "test", 2)
    found = first_change(
        before, parse_workflow("# moved\n" + WORKFLOW.replace("run: make\n", "run: m\n"), "ci.yml")
    )
    assert found is not None
    assert str(found.position) == "ci.yml:17:9"
