"""Cancelling a run.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-cancellation
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.execution.control import Timing

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.vm.provider import VmSpec
    from tests.unit.execution.conftest import Lab


async def test_the_running_step_is_stopped_and_what_asks_for_it_still_runs(lab: Lab) -> None:
    lab.on_output("up", lab.executor.cancel)
    result = await lab.steps(
        """
        - run: echo up; sleep inf
        - run: echo never
        - run: echo nor this
          if: failure()
        - run: echo ${{ job.status }}
          if: cancelled()
        - run: echo always
          if: always()
        """
    )

    assert result.conclusion == "cancelled"
    assert lab.transcript[3:] == [
        "job/1 started: Run echo up; sleep inf",
        "job/1 wrote 'up\\n'",
        "job/1 error: The operation was canceled.",
        "job/1 finished: cancelled",
        "job/2 finished: skipped",
        "job/3 finished: skipped",
        "job/4 started: Run echo cancelled",
        "job/4 wrote 'cancelled\\n'",
        "job/4 finished: success",
        "job/5 started: Run echo always",
        "job/5 wrote 'always\\n'",
        "job/5 finished: success",
        "job finished: cancelled",
        "session.released",
        "run finished: cancelled",
    ]


async def test_signals_come_more_and_more_firmly(lab: Lab) -> None:
    lab.on_output("up", lab.executor.cancel)
    await lab.steps(
        """
        - run: |
            trap 'echo interrupted' INT
            trap 'echo terminated' TERM
            echo up || true
            for i in 1 2 3 4; do sleep inf || true; done
        """
    )

    assert lab.output() == "up\ninterrupted\nterminated\n"
    assert lab.finished() == {"job/1": "cancelled", "job": "cancelled"}


async def test_a_step_that_ends_well_on_sigint_is_cancelled_all_the_same(lab: Lab) -> None:
    lab.on_output("up", lab.executor.cancel)
    await lab.steps(
        """
        - run: |
            trap 'echo bye; exit 0' INT
            echo up || true
            sleep inf
        """
    )

    assert lab.output() == "up\nbye\n"
    assert lab.finished()["job/1"] == "cancelled"


async def test_a_step_that_runs_always_is_not_stopped(lab: Lab) -> None:
    lab.on_output("up", lab.executor.cancel)
    await lab.steps(
        """
        - run: echo up; echo on
          if: always()
        - run: echo never
        """
    )

    assert lab.output() == "up\non\n"
    assert lab.finished() == {"job/1": "success", "job/2": "skipped", "job": "cancelled"}


async def test_what_still_runs_has_its_time_too(lab: Lab) -> None:
    lab.on_output("up", lab.executor.cancel)
    await lab.steps(
        """
        - run: echo up; sleep inf
        - run: sleep inf
          if: always()
        """,
        timing=Timing(interrupt=0.01, terminate=0.01, cancel=0.05),
    )

    assert lab.finished() == {"job/1": "cancelled", "job/2": "cancelled", "job": "cancelled"}


async def test_jobs_that_run_always_go_on(lab: Lab) -> None:
    lab.on_output("up", lab.executor.cancel)
    await lab.run(
        """
        on: push
        jobs:
          a: {runs-on: ubuntu-latest, steps: [{run: echo up; sleep inf}]}
          b: {runs-on: ubuntu-latest, needs: a, steps: [{run: echo never}]}
          c: {runs-on: ubuntu-latest, needs: a, if: always(), steps: [{run: "echo ${{ needs.a.result }}"}]}
        """
    )

    assert lab.finished() == {
        "a/1": "cancelled",
        "a": "cancelled",
        "b": "cancelled",
        "c/1": "success",
        "c": "success",
    }
    assert lab.output("c") == "cancelled\n"


async def test_abort_stops_everything_at_once(lab: Lab) -> None:
    lab.on_output("up", lab.executor.abort)
    result = await lab.steps(
        """
        - run: |
            trap '' INT TERM
            echo up || true
            sleep inf
        - run: echo never
          if: always()
        """
    )

    assert result.conclusion == "cancelled"
    assert lab.transcript[4:] == [
        "job/1 wrote 'up\\n'",
        "job/1 finished: cancelled",
        "job finished: cancelled",
        "session.released",
        "run finished: cancelled",
    ]


async def test_a_second_interrupt_ends_what_the_first_left(lab: Lab) -> None:
    lab.on_output("up", lab.executor.cancel)
    lab.on_output("hold on", lab.executor.abort)
    result = await lab.steps(
        """
        - run: echo up; sleep inf
        - run: echo hold on; sleep inf
          if: always()
        """
    )

    assert result.conclusion == "cancelled"
    assert lab.transcript[-2:] == ["session.released", "run finished: cancelled"]


async def test_cancelling_while_the_vm_is_made_ends_the_run(make_lab: Callable[..., Lab]) -> None:
    import asyncio

    async def never(_spec: VmSpec, _number: int) -> None:
        lab.executor.cancel()
        await asyncio.Event().wait()

    lab = make_lab(on_allocate=never)
    async with lab.manager:
        result = await lab.steps("- run: echo never")

    assert result.conclusion == "cancelled"
    assert lab.transcript == ["run.started", "run finished: cancelled"]


async def test_a_guest_that_does_not_end_a_killed_step_is_lost(lab: Lab) -> None:
    lab.on_output("up", lab.executor.cancel)
    result = await lab.steps(
        "- run: echo up; fake silent", timing=Timing(interrupt=0.01, terminate=0.01, kill=0.01, health=9)
    )

    assert result.conclusion in {"failure", "cancelled"}
    assert lab.transcript[-2:] == ["session.released", f"run finished: {result.conclusion}"]
