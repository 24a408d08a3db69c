"""The order of jobs."""

from __future__ import annotations

from cloche.workflow.graph import ancestors, dependents, layers
from cloche.workflow.parse import parse_workflow

JOBS = parse_workflow(
    """
on: push
jobs:
  report: {needs: [test, LINT], runs-on: x, steps: []}
  build: {runs-on: x, steps: []}
  test: {needs: build, runs-on: x, steps: []}
  lint: {runs-on: x, steps: []}
""",
    "w.yml",
).jobs


def test_layers_follow_needs_and_else_the_file() -> None:
    assert layers(JOBS) == (("build", "lint"), ("test",), ("report",))
    assert layers({}) == ()


def test_who_waits_for_whom() -> None:
    assert dependents(JOBS, "build") == ("report", "test")
    assert dependents(JOBS, "report") == ()
    assert ancestors(JOBS, "report") == ("build", "test", "lint")
    assert ancestors(JOBS, "lint") == ()
