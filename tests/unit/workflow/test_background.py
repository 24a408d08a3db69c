import pytest

from cloche.errors import WorkflowError
from cloche.workflow.parse import parse_workflow

HEAD = "on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - {id: server, run: a, background: true}\n"
GOOD = [
    "wait: server",
    "wait: [server]",
    "wait-all:",
    "wait-all: true",
    "cancel: server",
    "parallel: [{run: a}, {uses: a/b@c}]",
]


def wrong(step: str) -> list[str]:
    try:
        parse_workflow(f"{HEAD}      - {step}\n", "w.yml", allow_unsupported=True)
    except WorkflowError as error:
        return [f"{one.position.line}:{one.position.column} {one.message}" for one in error.diagnostics]
    return []


@pytest.mark.parametrize("step", GOOD)
def test_what_may_be_written(step: str) -> None:
    assert wrong(step) == []


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("wait: other", "7:15 Step references unknown step ID 'other'"),
        ("wait: [server, Server]", "7:24 Step references unknown step ID 'Server'"),
        ("cancel: __x", "7:17 The identifier '__x' is invalid. IDs starting with '__' are reserved."),
        ("{id: me, wait: ME}", "7:24 Step 'me' cannot reference itself"),
        ("wait-all: false", "7:19 The value of 'wait-all' must be true or omitted"),
        (
            "parallel: [{run: a, background: true}]",
            (
                "7:9 'background' is not allowed inside a parallel block. "
                "Steps in a parallel block are automatically run as background steps."
            ),
        ),
        ("parallel: [{wait-all: }]", "7:9 'wait-all' is not allowed inside a parallel block."),
        ("parallel: [{parallel: [{run: a}]}]", "7:9 Nested 'parallel' blocks are not allowed."),
        ("parallel: [{uses: none}]", "7:27 Expected format {org}/{repo}[/path]@ref. Actual 'none'"),
    ],
)
def test_what_may_not(step: str, message: str) -> None:
    assert wrong(step) == [message]


def test_a_step_knows_only_those_before_it() -> None:
    assert wrong("wait: later\n      - {id: later, run: a}") == [
        "7:15 Step references unknown step ID 'later'"
    ]
