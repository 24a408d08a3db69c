"""A run that is stopped: by the first job that fails, by its time, by its output, by the loss of its session."""

from __future__ import annotations

import asyncio
import textwrap
from typing import TYPE_CHECKING

import pytest

from cloche.errors import ClocheError
from cloche.events import LimitReached
from cloche.execution.control import Timing
from cloche.execution.executor import WorkflowExecutor
from cloche.execution.request import RunRequest
from cloche.pool import VmPool
from cloche.session import SessionContext, SessionManager, SessionRegistry, SessionState, SessionStateError
from cloche.vm.fake import FakeProvider
from cloche.vm.provider import VmSpec
from cloche.workflow.parse import parse_workflow

if TYPE_CHECKING:
    from pathlib import Path

    from cloche.events import Event
    from tests.unit.execution.conftest import Lab

KIB = 1024


def limits(lab: Lab) -> list[LimitReached]:
    return [event for event in lab.events if isinstance(event, LimitReached)]


# The first failure

FAILING = """
on: push
jobs:
  bad: {runs-on: ubuntu-latest, steps: [{run: exit 1}]}
  good:
    runs-on: ubuntu-latest
    steps:
      - run: sleep inf
      - {run: echo after all, if: always()}
  later: {runs-on: ubuntu-latest, needs: bad, steps: [{run: echo never}]}
  last: {runs-on: ubuntu-latest, needs: bad, if: always(), steps: [{run: echo at last}]}
"""


async def test_the_first_job_that_fails_cancels_the_others(lab: Lab) -> None:
    result = await lab.run(FAILING, stop_on_failure=True)
    assert result.conclusion == "failure"
    assert lab.finished() == {
        "bad/1": "failure",
        "bad": "failure",
        "good/1": "cancelled",
        "good/2": "success",
        "good": "cancelled",
        "later": "cancelled",
        "last/1": "success",
        "last": "success",
    }
    assert "Job 'bad' failed: the others are cancelled (stop_on_failure)." in lab.messages()


async def test_a_failure_that_is_forgiven_cancels_nobody(lab: Lab) -> None:
    result = await lab.run(
        """
        on: push
        jobs:
          bad: {runs-on: ubuntu-latest, continue-on-error: true, steps: [{run: exit 1}]}
          good: {runs-on: ubuntu-latest, needs: bad, steps: [{run: echo fine}]}
        """,
        stop_on_failure=True,
    )
    assert (result.conclusion, lab.output("good")) == ("success", "fine\n")


async def test_the_last_job_that_fails_has_nobody_to_cancel(lab: Lab) -> None:
    result = await lab.steps("- run: exit 1", stop_on_failure=True)
    assert result.conclusion == "failure"
    assert lab.messages() == ["Process completed with exit code 1."]


async def test_without_it_a_failure_cancels_nobody(lab: Lab) -> None:
    result = await lab.run(FAILING.replace("sleep inf", "echo fine"))
    assert (result.conclusion, lab.finished()["good"]) == ("failure", "success")


# Time


async def test_a_run_is_cancelled_when_its_time_is_up_and_fails(lab: Lab) -> None:
    result = await lab.steps("- run: sleep inf\n- run: echo after all\n  if: always()", time_limit=0.05)
    assert result.conclusion == "failure"
    assert lab.finished() == {"job/1": "cancelled", "job/2": "success", "job": "cancelled"}
    why = "The run has exceeded the maximum execution time of 50 ms."
    assert lab.messages() == [why, why, "The operation was canceled."]
    (limit,) = limits(lab)
    assert (limit.which, limit.limit, limit.job) == ("time", 0.05, None)


async def test_a_run_that_ends_in_time_is_not_disturbed(lab: Lab) -> None:
    result = await lab.steps("- run: echo quick", time_limit=60.0)
    assert (result.conclusion, limits(lab)) == ("success", [])


async def test_a_subscriber_that_cannot_take_the_news_ends_the_run(lab: Lab) -> None:
    def refuse(event: Event) -> None:
        if isinstance(event, LimitReached):
            raise ClocheError("the disk is full")

    lab.hooks.append(refuse)
    with pytest.raises(ClocheError, match="the disk is full"):
        await lab.steps("- run: sleep inf", time_limit=0.05)
    assert lab.transcript[-2:] == ["session.released", "run finished: failure"]


async def test_what_still_runs_in_a_cancelled_run_has_its_end_too(lab: Lab) -> None:
    timing = Timing(interrupt=0.05, terminate=0.05, kill=5.0, cancel=0.1, health=5.0)
    result = await lab.run(
        """
        on: push
        jobs:
          first: {runs-on: ubuntu-latest, steps: [{run: sleep inf}]}
          then: {runs-on: ubuntu-latest, needs: first, if: always(), steps: [{run: sleep inf, if: always()}]}
          never: {runs-on: ubuntu-latest, needs: then, if: always(), steps: [{run: echo never}]}
        """,
        time_limit=0.05,
        timing=timing,
    )
    assert result.conclusion == "failure"
    assert lab.finished() == {
        "first/1": "cancelled",
        "first": "cancelled",
        "then/1": "cancelled",
        "then": "cancelled",
        "never": "cancelled",
    }


async def test_steps_without_a_limit_of_their_own_get_the_default(lab: Lab) -> None:
    await lab.steps(
        """
        - run: sleep inf
          continue-on-error: true
        - run: sleep 0.2
          timeout-minutes: 1
        """,
        step_timeout=0.05,
    )
    assert lab.finished() == {"job/1": "success (failure)", "job/2": "success", "job": "success"}
    assert lab.messages()[0].startswith("The action 'Run sleep inf' has timed out after")


# Output


async def test_a_run_is_cancelled_when_it_wrote_too_much(lab: Lab) -> None:
    result = await lab.run(
        """
        on: push
        jobs:
          job:
            runs-on: ubuntu-latest
            steps:
              - run: for i in 1 2 3 4; do echo 0123456789; done
              - run: while true; do echo 0123456789; done
              - {run: echo after all, if: always()}
        """,
        output_limit=KIB,
    )
    assert result.conclusion == "failure"
    assert len(lab.output()) == KIB + 1  # the newline that ends the last line
    assert lab.finished() == {
        "job/1": "success",
        "job/2": "cancelled",
        "job/3": "success",
        "job": "cancelled",
    }
    (limit,) = limits(lab)
    assert (limit.which, limit.limit, limit.job, limit.step) == ("output", KIB, "job", 2)
    assert limit.value > KIB
    assert "The run has written more than 1 KiB, its limit. Nothing more of it is kept." in lab.messages()


async def test_jobs_share_the_limit_of_output(lab: Lab) -> None:
    job = "{runs-on: ubuntu-latest, steps: [{run: for i in 1 2 3 4 5 6; do echo 01234567890123456789; done}]}"
    result = await lab.run(f"on: push\njobs:\n  a: {job}\n  b: {job}\n", output_limit=200)
    assert result.conclusion == "failure"
    assert len(lab.output("a") + lab.output("b")) <= 202
    assert len(limits(lab)) == 1


async def test_as_much_as_is_allowed_is_not_too_much(lab: Lab) -> None:
    result = await lab.steps("- run: echo 0123456789", output_limit=11)
    assert (result.conclusion, lab.output()) == ("success", "0123456789\n")


# Memory


async def test_a_process_killed_for_memory_is_told_as_a_limit(lab: Lab) -> None:
    await lab.steps("- run: fake oom", spec=VmSpec(memory=1 << 30))
    (limit,) = limits(lab)
    assert (limit.which, limit.limit, limit.job, limit.step) == ("memory", 1 << 30, "job", 1)


# The session


@pytest.mark.parametrize("owned", [True, False])
async def test_a_run_whose_session_is_taken_away_says_so(lab: Lab, *, owned: bool) -> None:
    def take_away() -> None:
        (held,) = lab.manager._held.values()
        tasks.append(asyncio.ensure_future(lab.manager.release_session(held.session)))

    tasks: list[asyncio.Future[None]] = []
    lab.on_output("up", take_away)
    text = """
    on: push
    jobs:
      job:
        runs-on: ubuntu-latest
        steps:
          - run: echo up; sleep inf
          - {run: echo never, if: always()}
      later: {runs-on: ubuntu-latest, needs: job, if: always(), steps: [{run: echo never}]}
    """
    if owned:
        result = await lab.run(text)
    else:
        session = await lab.manager.create_session(SessionContext("mine"))
        workflow = parse_workflow(textwrap.dedent(text), "test.yml")
        result = await lab.executor.execute_workflow_in_session(session, workflow, RunRequest(root=lab.root))
    await asyncio.gather(*tasks)
    lost = f"session {result.session_id} ended before the run did: it was released"
    assert result.conclusion == "failure"
    assert lab.messages() == [lost, f"The step cannot go on: {lost}", f"Job 'later': {lost}"]
    assert lab.finished() == {"job/1": "failure", "job/2": "cancelled", "job": "failure", "later": "failure"}


async def test_a_quiet_step_keeps_its_session(tmp_path: Path) -> None:
    """The guest's health is asked for more often than sessions are found stale."""
    text = "on: push\njobs:\n  job: {runs-on: ubuntu-latest, steps: [{run: sleep 0.4}]}\n"
    registry = SessionRegistry(tmp_path / "sessions")
    async with SessionManager(
        VmPool(FakeProvider()), registry, session_timeout=0.2, cleanup_interval=0.02
    ) as manager:
        result = await WorkflowExecutor(manager).execute_workflow(
            parse_workflow(text, "test.yml"), RunRequest(root=tmp_path, timing=Timing(health=0.01))
        )
    assert result.conclusion == "success"
    assert manager.stats().stale == 0


@pytest.mark.parametrize("state", [SessionState.EXECUTING, SessionState.COMPLETED, SessionState.TERMINATING])
async def test_a_session_that_is_busy_or_over_carries_out_nothing(lab: Lab, state: SessionState) -> None:
    workflow = parse_workflow("on: push\njobs:\n  job: {runs-on: x, steps: [{run: x}]}\n", "test.yml")
    request = RunRequest(root=lab.root, image_for=lambda _labels: "default")
    async with lab.manager.session(SessionContext("mine")) as session:
        lab.manager.update_state(session, SessionState.ACTIVE)
        lab.manager.update_state(session, state)
        with pytest.raises(SessionStateError, match=f"{session.id} is {state}"):
            await lab.executor.execute_workflow_in_session(session, workflow, request)
    assert lab.events == []


async def test_a_session_of_the_callers_own_with_another_image_is_told_apart(lab: Lab) -> None:
    workflow = parse_workflow("on: push\njobs:\n  job: {runs-on: x, steps: [{run: x}]}\n", "test.yml")
    request = RunRequest(root=lab.root, image_for=lambda _labels: "jammy")
    async with lab.manager.session(SessionContext("mine")) as session:
        result = await lab.executor.execute_workflow_in_session(session, workflow, request)
    assert result.conclusion == "failure"
    assert lab.messages() == ["Job 'job': it needs the image 'jammy', the VM has 'default'"]
