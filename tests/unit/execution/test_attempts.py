from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from cloche.errors import UsageError
from cloche.events import StepFinished, StepOutput
from cloche.execution import attempts
from cloche.execution.attempts import Watcher, with_script
from cloche.execution.resume import Place
from cloche.workflow.parse import parse_workflow

if TYPE_CHECKING:
    from cloche.workflow.model import Workflow

TEXT = b"""
on: push
jobs:
  a:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: one
      - name: tested
        run: two
        working-directory: inner
        if: always()
      - run: three
  b:
    runs-on: ubuntu-latest
    steps: [{run: other}]
"""


def workflow() -> Workflow:
    return parse_workflow(TEXT, "w.yml")


def place(step: int, leg: str | None = None) -> Place:
    return Place("a", leg, "a", step, "", "tested", "root")


def scripts(made: Workflow, job: str = "a") -> list[str | None]:
    return [step.run.text if step.run else None for step in made.jobs[job].steps]


def test_the_script_is_another_and_nothing_else() -> None:
    made = with_script(workflow(), place(3), 0, "new", look=False)
    assert scripts(made) == [None, "one", "new", "three"]
    before, after = workflow().jobs["a"].steps[2], made.jobs["a"].steps[2]
    assert (after.working_directory, after.condition, after.name) == (
        before.working_directory,
        before.condition,
        before.name,
    )
    assert made.jobs["b"] == workflow().jobs["b"]


def test_set_up_scripts_come_before_and_do_not_count() -> None:
    assert scripts(with_script(workflow(), place(5), 2, "new", look=False)) == [None, "one", "new", "three"]


def test_what_it_writes_is_looked_at_around_it() -> None:
    made = with_script(workflow(), place(3), 0, "new", look=True)
    found = scripts(made)
    assert found[:2] == [None, "one"]
    assert (found[3], found[5]) == ("new", "three")
    assert [step.index for step in made.jobs["a"].steps] == [1, 2, 3, 4, 5, 6]
    assert made.jobs["a"].steps[4].condition is not None
    assert made.jobs["a"].steps[4].condition.expression == "always()"


@pytest.mark.parametrize(("step", "setups"), [(1, 0), (1, 1), (5, 0), (2, 2)])
def test_only_a_script_can_be_another(step: int, setups: int) -> None:
    with pytest.raises(UsageError, match="runs no script"):
        with_script(workflow(), place(step), setups, "new", look=False)


# Watching one; its steps are numbered as `with_script(look=True)` has them: mark, attempt, look.

COMMON: dict[str, Any] = {"run_id": "run-1", "at": 0.0, "job": "a", "leg": None}
HELLO = hashlib.sha256(b"hello\n").hexdigest()


def output(step: int, text: str, **other: Any) -> StepOutput:
    return StepOutput(**{**COMMON, "step": step, "text": text, **other})


def finished(step: int, code: int = 0, **other: Any) -> StepFinished:
    outcome = "failure" if code else "success"
    fields = {
        **COMMON, "step": step, "id": "", "name": "x", "vm_id": "vm-1", "boot_id": "b", "outcome": outcome,
        "conclusion": outcome, "exit_code": code, "outputs": {}, "duration_ms": 1500,
    }  # fmt: skip
    return StepFinished(**{**fields, **other})


def test_an_attempt_is_seen_to_its_end_and_no_further() -> None:
    watcher, calls = Watcher("script", place(3)), []
    watcher.done = lambda: calls.append(1)
    for event in (
        finished(3),
        output(4, "one\n"),
        output(4, "of another leg\n", leg="x"),
        output(1, "of another job\n", job="b"),
        output(4, "two\n"),
        finished(4, code=7),
    ):
        watcher(event)
    assert calls == []
    watcher(output(5, f"{HELLO}  dir/a file\n"))
    watcher(finished(5))
    assert calls == [1]
    watcher(finished(6, outcome="cancelled", exit_code=None))
    attempt = watcher.attempt()
    assert (attempt.conclusion, attempt.exit_code, attempt.seconds) == ("failure", 7, 1.5)
    assert attempt.output == "one\ntwo\n"
    assert attempt.files == {"dir/a file": HELLO}


def test_files_that_could_not_be_looked_at_are_unknown() -> None:
    watcher = Watcher("script", place(3))
    for event in (finished(3), finished(4), output(5, "find: not found\n"), finished(5, code=127)):
        watcher(event)
    assert watcher.attempt().files is None


def test_an_attempt_that_never_began_says_why() -> None:
    watcher = Watcher("script", place(3))
    watcher(finished(3))
    assert watcher.attempt("no VM").error == "no VM"
    assert watcher.attempt().error == "the attempt did not begin"


def test_only_the_last_of_much_output_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MAX_OUTPUT", 10)
    watcher = Watcher("script", place(3))
    for number in range(100):
        watcher(output(4, f"line {number}\n"))
    watcher(finished(4))
    assert watcher.attempt().output == "8\nline 99\n"
