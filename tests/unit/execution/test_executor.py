"""The bond of a run and its VM, as seen from the run's events."""

from __future__ import annotations

import asyncio
import logging
import re
import textwrap
from typing import TYPE_CHECKING

import pytest

from cloche.errors import ProviderError, SessionLimitReached, UsageError, WorkflowError
from cloche.events import (
    Event,
    Notice,
    RunFinished,
    RunStarted,
    SessionCreated,
    SessionReleased,
    StepFinished,
)
from cloche.execution.control import Timing
from cloche.execution.executor import WorkflowExecutor
from cloche.execution.gitstate import EventInfo
from cloche.execution.request import RunRequest
from cloche.pool import VmPool
from cloche.session import SessionContext, SessionManager, SessionRegistry, SessionState
from cloche.vm.fake import FakeProvider
from cloche.vm.provider import VmSpec
from cloche.workflow.parse import parse_workflow

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cloche.session import Session
    from tests.unit.execution.conftest import Lab

HELLO = """
    name: hello
    on: push
    jobs:
      job:
        name: Greet
        runs-on: ubuntu-latest
        steps:
          - run: echo hello
          - name: Who
            run: echo world
"""


async def test_a_run_from_start_to_end(lab: Lab) -> None:
    result = await lab.run(HELLO)

    assert lab.transcript == [
        "run.started",
        "session.created",
        "job started: Greet, 2 steps",
        "job/1 started: Run echo hello",
        "job/1 wrote 'hello\\n'",
        "job/1 finished: success",
        "job/2 started: Who",
        "job/2 wrote 'world\\n'",
        "job/2 finished: success",
        "job finished: success",
        "session.released",
        "run finished: success",
    ]
    assert result.conclusion == "success"
    assert [(job.job, job.name, job.conclusion) for job in result.jobs] == [("job", "Greet", "success")]


async def test_events_tell_who_ran_where(lab: Lab) -> None:
    result = await lab.run(HELLO)

    start, session = lab.events[:2]
    release, end = lab.events[-2:]
    assert isinstance(start, RunStarted)
    assert (start.workflow, start.path, start.event) == ("hello", ".github/workflows/test.yml", "push")
    assert start.jobs == {"job": "Greet"}
    assert isinstance(session, SessionCreated)
    assert (session.session_id, session.vm_id) == (result.session_id, result.vm_id)
    assert (session.provider, session.source) == ("fake", "booted")
    assert isinstance(release, SessionReleased)
    assert (release.session_id, release.vm_id) == (result.session_id, result.vm_id)
    assert isinstance(end, RunFinished)
    assert {event.run_id for event in lab.events} == {result.run_id}


async def test_all_steps_run_in_the_one_vm(lab: Lab) -> None:
    await lab.run(HELLO)

    session = lab.events[1]
    steps = [event for event in lab.events if isinstance(event, StepFinished)]
    assert isinstance(session, SessionCreated)
    assert {step.vm_id for step in steps} == {session.vm_id}
    assert {step.boot_id for step in steps} == {session.boot_id}
    assert lab.manager.stats().pool.allocated == 1


async def test_the_log_is_what_operators_rely_on(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    result = await lab.run(HELLO)

    lines = [re.sub(r"\d+(\.\d+)? ?ms", "0 ms", record.getMessage()) for record in caplog.records]
    assert lines == [
        f"Allocated VM {result.vm_id} in 0 ms for session {result.session_id}",
        f"Starting workflow 'hello' for session {result.session_id}",
        "Executing step 1/2: Run echo hello",
        "Executing step 2/2: Who",
        "Workflow 'hello' completed successfully in 0 ms",
        f"Released session {result.session_id} with VM {result.vm_id}",
    ]


async def test_notes_of_the_provider_are_shown_once(lab: Lab) -> None:
    lab.notes = ("no KVM here",)

    await lab.run(HELLO)

    assert [event.message for event in lab.events if isinstance(event, Notice)] == ["no KVM here"]


async def test_a_failed_run_releases_its_session_too(lab: Lab) -> None:
    result = await lab.steps("- run: exit 1")

    assert result.conclusion == "failure"
    assert lab.transcript[-3:] == ["job finished: failure", "session.released", "run finished: failure"]


async def test_what_is_wrong_is_said_before_anything_is_allocated(lab: Lab) -> None:
    with pytest.raises(WorkflowError):
        await lab.run(HELLO.replace("ubuntu-latest", "windows-latest"))

    assert lab.events == []
    assert lab.manager.stats().pool.allocated == 0


async def test_no_vm_is_a_failed_run_and_the_providers_error(make_lab: Callable[..., Lab]) -> None:
    async def refuse(_spec: VmSpec, _number: int) -> None:
        raise ProviderError("no QEMU here")

    lab = make_lab(on_allocate=refuse)
    async with lab.manager:
        with pytest.raises(ProviderError, match="no QEMU here"):
            await lab.run(HELLO)

    assert lab.transcript == ["run.started", "run finished: failure"]


async def test_a_refused_session_leaves_the_active_one_alone(tmp_path: Path) -> None:
    registry = SessionRegistry(tmp_path / "sessions")
    workflow = parse_workflow(HELLO, "test.yml")
    async with SessionManager(VmPool(FakeProvider()), registry, limit=1) as manager:
        session = await manager.create_session(SessionContext("other"))
        with pytest.raises(SessionLimitReached):
            await WorkflowExecutor(manager).execute_workflow(workflow, RunRequest(root=tmp_path))
        await manager.release_session(session)

        result = await WorkflowExecutor(manager).execute_workflow(workflow, RunRequest(root=tmp_path))

    assert result.conclusion == "success"


async def test_a_subscriber_that_raises_ends_the_run_and_the_session(lab: Lab) -> None:
    class BrokenError(Exception):
        pass

    def break_at_step(event: Event) -> None:
        if isinstance(event, StepFinished):
            raise BrokenError

    lab.hooks.append(break_at_step)
    with pytest.raises(BrokenError):
        await lab.run(HELLO)

    assert lab.manager.stats().released == 1
    assert lab.transcript[-2:] == ["session.released", "run finished: failure"]


async def test_a_subscriber_that_raises_at_the_start_allocates_nothing(lab: Lab) -> None:
    def refuse(event: Event) -> None:
        if isinstance(event, RunStarted):
            raise UsageError("no")

    lab.hooks.append(refuse)
    with pytest.raises(UsageError):
        await lab.run(HELLO)

    assert lab.manager.stats().created == 0


async def test_cancelling_the_callers_task_releases_the_session(lab: Lab) -> None:
    task = asyncio.create_task(lab.steps("- run: echo up; sleep inf"))
    lab.on_output("up", task.cancel)

    with pytest.raises(asyncio.CancelledError):
        await task

    assert lab.transcript[-4:] == [
        "job/1 finished: cancelled",
        "job finished: cancelled",
        "session.released",
        "run finished: cancelled",
    ]


async def test_the_spec_that_was_asked_for_is_the_vms(make_lab: Callable[..., Lab]) -> None:
    asked: list[VmSpec] = []

    async def note(spec: VmSpec, _number: int) -> None:
        asked.append(spec)

    lab = make_lab(on_allocate=note)
    async with lab.manager:
        await lab.run(HELLO, spec=VmSpec(cpus=3, network="none"), image_for=lambda _labels: "jammy")

    assert asked == [VmSpec(image="jammy", cpus=3, network="none")]


async def test_session_states_follow_the_run(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[SessionState] = []
    update = lab.manager.update_state

    def note(session: Session, state: SessionState) -> None:
        states.append(state)
        update(session, state)

    monkeypatch.setattr(lab.manager, "update_state", note)
    await lab.run(HELLO)
    await lab.steps("- run: exit 1")

    active, executing = SessionState.ACTIVE, SessionState.EXECUTING
    assert states == [active, executing, SessionState.COMPLETED, active, executing, SessionState.FAILED]


async def test_a_session_of_the_callers_own_serves_several_runs(lab: Lab) -> None:
    workflow = parse_workflow(HELLO, "test.yml")
    request = RunRequest(root=lab.root)
    async with lab.manager.session(SessionContext("mine")) as session:
        first = await lab.executor.execute_workflow_in_session(session, workflow, request)
        second = await lab.executor.execute_workflow_in_session(session, workflow, request)
        assert session.state is SessionState.ACTIVE

    assert (first.conclusion, second.conclusion) == ("success", "success")
    assert first.vm_id == second.vm_id == session.vm_id
    assert not any(isinstance(event, SessionReleased) for event in lab.events)
    assert lab.manager.stats().pool.allocated == 1


async def test_a_run_that_needs_no_vm_gets_none(lab: Lab) -> None:
    result = await lab.run(HELLO.replace("ubuntu-latest", "windows-latest"), skip_unsupported=True)

    assert result.conclusion == "skipped"
    assert (result.session_id, result.vm_id) == (None, None)
    assert lab.transcript == [
        "run.started",
        "warning: Job 'Greet': skipped: no image serves the label 'windows-latest'",
        "job finished: skipped",
        "run finished: skipped",
    ]
    assert lab.manager.stats().created == 0


async def test_a_guest_that_dies_fails_the_run(lab: Lab) -> None:
    result = await lab.steps(
        """
        - run: fake lose
          continue-on-error: true
        - run: echo never
          if: always()
        """
    )

    assert result.conclusion == "failure"
    assert lab.finished() == {"job/1": "failure", "job/2": "cancelled", "job": "failure"}
    (message,) = lab.messages()
    assert message.startswith("The step cannot go on: vm-")
    assert lab.transcript[-2:] == ["session.released", "run finished: failure"]


async def test_a_guest_that_falls_silent_fails_the_run(lab: Lab) -> None:
    result = await lab.steps("- run: fake silent", timing=Timing(health=0.01))

    assert result.conclusion == "failure"
    assert "did not answer" in lab.messages()[0]


async def test_a_guest_that_dies_between_jobs(lab: Lab) -> None:
    result = await lab.run(
        """
        on: push
        jobs:
          a: {runs-on: ubuntu-latest, steps: [{run: fake lose}]}
          b: {runs-on: ubuntu-latest, needs: a, if: always(), steps: [{run: echo never}]}
        """
    )

    assert result.conclusion == "failure"
    assert lab.finished() == {"a/1": "failure", "a": "failure", "b": "failure"}


async def test_three_runs_at_once_have_a_vm_each(lab: Lab) -> None:
    async def run(steps: int) -> tuple[str | None, set[str | None]]:
        events: list[Event] = []
        lines = "".join(f"          - run: echo {number} >> mine; cat mine\n" for number in range(steps))
        text = f"""
    on: push
    jobs:
      job:
        runs-on: ubuntu-latest
        steps:
{lines}"""
        executor = WorkflowExecutor(lab.manager, [events.append])
        result = await executor.execute_workflow(parse_workflow(text, "t.yml"), RunRequest(root=lab.root))
        assert result.conclusion == "success"
        finished = [event for event in events if isinstance(event, StepFinished)]
        assert len(finished) == steps
        return result.vm_id, {event.boot_id for event in finished}

    runs = await asyncio.gather(run(5), run(3), run(7))

    assert len({vm for vm, _ in runs}) == 3
    assert all(len(boots) == 1 for _, boots in runs)
    assert len(set.union(*(boots for _, boots in runs))) == 3
    assert lab.manager.stats().pool.allocated == 3


# The run's own name

DISPATCH = "on: {workflow_dispatch: {inputs: {what: {type: string}}}}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Deploy by @${{ github.actor }}", "Deploy by @mona"),
        ("${{ inputs.what }} at ${{ vars.where }}", "all at home"),
        ("3.10", "3.1"),
        ("|\n  two\n  lines", "two lines"),
    ],
)
async def test_a_run_may_have_a_name_of_its_own(lab: Lab, text: str, name: str) -> None:
    await lab.run(
        f"run-name: {text}\n" + textwrap.dedent(HELLO).replace("on: push", DISPATCH),
        event=EventInfo(name="workflow_dispatch", actor="mona"),
        inputs={"what": "all"},
        vars={"where": "home"},
    )
    started = lab.events[0]
    assert isinstance(started, RunStarted)
    assert started.name == name
    assert started.workflow == "hello"


async def test_no_piece_of_a_secret_is_left_where_a_name_is_cut(lab: Lab) -> None:
    await lab.run(
        f"run-name: {'x' * 995}${{{{ vars.token }}}}\n" + textwrap.dedent(HELLO),
        vars={"token": "hunter2-and-more"},
        secrets={"TOKEN": "hunter2-and-more"},
    )
    assert isinstance(lab.events[0], RunStarted)
    assert lab.events[0].name == "x" * 995 + "***"


async def test_a_run_whose_name_cannot_be_told_has_none_and_says_so(lab: Lab) -> None:
    result = await lab.run("run-name: ${{ fromJSON('{') }}\n" + textwrap.dedent(HELLO))
    assert result.conclusion == "success"
    assert isinstance(lab.events[0], RunStarted)
    assert lab.events[0].name == ""
    assert "`run-name` cannot be evaluated" in lab.messages("notice")[0]
