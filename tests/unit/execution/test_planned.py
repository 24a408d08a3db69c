"""Set-up and clean-up scripts around a job's steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.config import Command
from cloche.errors import Position
from cloche.events import JobStarted, StepFinished
from cloche.execution.control import Timing

if TYPE_CHECKING:
    from tests.unit.execution.conftest import Lab


def command(run: str, name: str = "Set up") -> Command:
    return Command(name, run, Position("cloche.toml", 2, 1))


def outlines(lab: Lab) -> list[str]:
    """The steps of the job and how they ended, in the order they ended."""
    return [f"{e.step} {e.name}: {e.conclusion}" for e in lab.events if isinstance(e, StepFinished)]


QUICK = Timing(interrupt=0.05, terminate=0.05, kill=5.0, cancel=0.1, cleanup=0.1, health=5.0)


async def test_scripts_are_steps_of_their_own_around_the_jobs(lab: Lab) -> None:
    result = await lab.steps(
        "- run: echo $WHO in $PWD; echo $X\n  name: Work",
        env={"WHO": "me"},
        setups=(command("echo X=1 >> $GITHUB_ENV; echo $PWD"), command("echo $X", "Set up (cloche.toml)")),
        cleanups=(command("echo put $X away", "Clean up"),),
    )
    assert result.conclusion == "success"
    assert outlines(lab) == [
        "1 Set up: success",
        "2 Set up (cloche.toml): success",
        "3 Work: success",
        "4 Clean up: success",
    ]
    assert next(event.steps for event in lab.events if isinstance(event, JobStarted)) == 4
    workspace = lab.output(step=1).strip()
    assert lab.output() == f"{workspace}\n1\nme in {workspace}\n1\nput 1 away\n"


async def test_every_job_has_its_own(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          a: {runs-on: ubuntu-latest, steps: [{run: cat mark}]}
          b: {runs-on: ubuntu-latest, needs: a, steps: [{run: cat mark}]}
        """,
        setups=(command("test ! -e mark; echo $GITHUB_JOB > mark"),),
    )
    assert (lab.output("a"), lab.output("b")) == ("a\n", "b\n")


async def test_they_know_nothing_of_the_workflows_defaults(lab: Lab) -> None:
    result = await lab.run(
        """
        on: push
        defaults: {run: {shell: "false {0}", working-directory: /nowhere}}
        jobs:
          job: {runs-on: ubuntu-latest, steps: [{run: echo hello, shell: bash, working-directory: /}]}
        """,
        setups=(command("echo ready"),),
    )
    assert (result.conclusion, lab.output()) == ("success", "ready\nhello\n")


async def test_a_failing_set_up_fails_the_job_and_none_of_its_steps_run(lab: Lab) -> None:
    result = await lab.steps(
        "- run: echo never\n- run: echo nor this\n  if: always()",
        setups=(command("exit 3"), command("echo too late")),
        cleanups=(command("echo ${{ job.status }}", "Clean up"),),
    )
    assert result.conclusion == "failure"
    assert [line.partition(": ")[2] for line in outlines(lab)] == ["failure", *["skipped"] * 3, "success"]
    assert lab.output() == "failure\n"
    assert lab.messages() == ["Process completed with exit code 3."]


async def test_clean_up_runs_after_a_failure_and_changes_nothing_about_it(lab: Lab) -> None:
    result = await lab.steps(
        "- run: exit 1",
        cleanups=(command("echo first; exit 1", "Clean up (cloche.toml)"), command("echo last", "Clean up")),
    )
    assert result.conclusion == "failure"
    assert lab.output() == "first\nlast\n"
    assert lab.finished() == {"job/1": "failure", "job/2": "failure", "job/3": "success", "job": "failure"}


async def test_a_failing_clean_up_fails_a_job_that_did_well(lab: Lab) -> None:
    result = await lab.steps("- run: echo fine", cleanups=(command("exit 4", "Clean up"),))
    assert result.conclusion == "failure"
    assert lab.messages() == ["Process completed with exit code 4."]


async def test_a_failing_clean_up_leaves_a_cancelled_job_cancelled(lab: Lab) -> None:
    lab.on_output("up", lab.executor.cancel)
    result = await lab.steps("- run: echo up; sleep inf", cleanups=(command("exit 4", "Clean up"),))
    assert result.conclusion == "cancelled"
    assert lab.finished() == {"job/1": "cancelled", "job/2": "failure", "job": "cancelled"}


async def test_clean_up_runs_though_nothing_else_may_any_more(lab: Lab) -> None:
    lab.on_output("up", lab.executor.cancel)
    await lab.steps(
        "- run: echo up; sleep inf\n- run: sleep inf\n  if: always()",
        cleanups=(command("echo tidy", "Clean up"),),
        timing=QUICK,
    )
    assert lab.finished() == {
        "job/1": "cancelled",
        "job/2": "cancelled",
        "job/3": "success",
        "job": "cancelled",
    }
    assert lab.output(step=3) == "tidy\n"


async def test_clean_up_runs_after_the_jobs_time_was_up(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          job: {runs-on: ubuntu-latest, timeout-minutes: 0.001, steps: [{run: sleep inf}]}
        """,
        cleanups=(command("echo tidy", "Clean up"),),
    )
    assert lab.output(step=2) == "tidy\n"


async def test_each_clean_up_has_its_deadline(lab: Lab) -> None:
    result = await lab.steps(
        "- run: echo fine",
        cleanups=(command("sleep inf", "Clean up (cloche.toml)"), command("echo tidy", "Clean up")),
        timing=QUICK,
    )
    assert result.conclusion == "failure"
    assert "The action 'Clean up (cloche.toml)' has timed out after" in lab.messages()[0]
    assert lab.output(step=3) == "tidy\n"


async def test_a_cancelled_set_up_is_none(lab: Lab) -> None:
    lab.on_output("up", lab.executor.cancel)
    await lab.steps(
        "- run: echo never\n  if: always()",
        setups=(command("echo up; sleep inf"),),
        cleanups=(command("echo tidy", "Clean up"),),
    )
    assert lab.finished() == {
        "job/1": "cancelled",
        "job/2": "skipped",
        "job/3": "success",
        "job": "cancelled",
    }


async def test_a_mistake_in_a_script_names_its_place(lab: Lab) -> None:
    await lab.steps("- run: echo never", setups=(command("echo ${{ nonsense.x }}"),))
    assert lab.finished()["job"] == "failure"
    assert "cloche.toml:2" in lab.messages()[0]
