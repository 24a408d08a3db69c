"""The inputs of ``workflow_dispatch``.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#onworkflow_dispatchinputs
"""

from __future__ import annotations

import pytest

from cloche.errors import UsageError
from cloche.execution.inputs import dispatch_inputs
from cloche.workflow.parse import parse_workflow

WORKFLOW = parse_workflow(
    """
on:
  push:
  workflow_dispatch:
    inputs:
      text: {type: string, default: hello}
      bare:
      flag: {type: boolean, default: true}
      off: {type: boolean}
      count: {type: number, default: 3}
      level: {type: choice, options: [low, high], default: high}
      first: {type: choice, options: [a, b]}
      must: {required: true}
jobs: {a: {runs-on: ubuntu-latest, steps: [{run: x}]}}
""",
    "ci.yml",
)


def test_defaults_and_types() -> None:
    assert dispatch_inputs(WORKFLOW, "workflow_dispatch", {"must": "1"}) == {
        "text": "hello",
        "bare": "",
        "flag": True,
        "off": False,
        "count": 3.0,
        "level": "high",
        "first": "a",
        "must": "1",
    }


def test_what_was_given_is_made_what_was_declared() -> None:
    given = {"must": "x", "flag": "false", "count": "1.5", "level": "low", "text": ""}

    inputs = dispatch_inputs(WORKFLOW, "workflow_dispatch", given)

    assert (inputs["flag"], inputs["count"], inputs["level"], inputs["text"]) == (False, 1.5, "low", "")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "'must' is required"),
        ({"must": "1", "nope": "2"}, "declares no input 'nope'"),
        ({"must": "1", "flag": "yes"}, "'flag' is a boolean, not 'yes'"),
        ({"must": "1", "count": "many"}, "'count' is a number, not 'many'"),
        ({"must": "1", "level": "middle"}, "'level' cannot be 'middle'"),
    ],
)
def test_mistakes_are_named(given: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        dispatch_inputs(WORKFLOW, "workflow_dispatch", given)

    assert caught.value.hint or "number" in message


def test_other_events_have_no_inputs() -> None:
    assert dispatch_inputs(WORKFLOW, "push", {}) == {}
    with pytest.raises(UsageError, match="belong to the event workflow_dispatch"):
        dispatch_inputs(WORKFLOW, "push", {"text": "x"})
