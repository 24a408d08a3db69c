"""Jobs, their order, their legs and what they come to, on the fake provider.

https://docs.github.com/en/actions/how-tos/write-workflows/choose-what-workflows-do/use-jobs
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloche.errors import UsageError
from cloche.events import JobFinished, JobStarted, RunStarted
from cloche.execution.jobs import combined
from cloche.vm.provider import VmSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.events import Conclusion
    from cloche.vm.fake import Call
    from cloche.vm.guest import ExecSpec
    from tests.unit.execution.conftest import Lab


def jobs(lab: Lab) -> dict[str, str]:
    """The conclusions of jobs and legs."""
    return {name: end for name, end in lab.finished().items() if "/" not in name}


async def test_jobs_wait_for_those_they_need(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          last: {runs-on: ubuntu-latest, needs: [left, right], steps: [{run: echo last}]}
          left: {runs-on: ubuntu-latest, needs: first, steps: [{run: echo left}]}
          right: {runs-on: ubuntu-latest, needs: first, steps: [{run: echo right}]}
          first: {runs-on: ubuntu-latest, steps: [{run: echo first}]}
        """
    )

    order = [event.job for event in lab.events if isinstance(event, JobFinished)]
    assert order[0] == "first"
    assert order[-1] == "last"


async def test_jobs_have_a_root_of_their_own(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          a: {runs-on: ubuntu-latest, steps: [{run: "echo a > mine; echo X=1 >> $GITHUB_ENV"}]}
          b: {runs-on: ubuntu-latest, needs: a, steps: [{run: "ls; echo [$X]"}]}
        """
    )

    assert lab.output("b") == "[]\n"


async def test_outputs_reach_those_who_need_the_job(lab: Lab) -> None:
    result = await lab.run(
        """
        on: push
        jobs:
          a:
            runs-on: ubuntu-latest
            outputs: {version: "v${{ steps.one.outputs.v }}", empty: "${{ steps.none.outputs.x }}"}
            steps: [{id: one, run: 'echo v=3 >> "$GITHUB_OUTPUT"'}]
          b:
            runs-on: ubuntu-latest
            needs: a
            steps:
              - run: echo ${{ needs.a.outputs.version }} ${{ needs.a.result }} [${{ needs.a.outputs.empty }}]
          c:
            runs-on: ubuntu-latest
            needs: b
            steps: [{run: "echo [${{ needs.a.outputs.version }}]"}]
        """
    )

    assert lab.output("b") == "v3 success []\n"
    assert lab.output("c") == "[]\n"
    assert result.jobs[0].outputs == {"version": "v3"}


async def test_an_output_that_holds_a_secret_is_dropped(lab: Lab) -> None:
    result = await lab.run(
        """
        on: push
        jobs:
          a:
            runs-on: ubuntu-latest
            outputs: {leak: "x${{ secrets.TOKEN }}", fine: ok}
            steps: [{run: "true"}]
        """,
        secrets={"TOKEN": "hunter2"},
    )

    assert result.jobs[0].outputs == {"fine": "ok"}
    assert lab.messages("warning") == ["Job 'a': Skip output 'leak' since it may contain secret."]


async def test_outputs_that_cannot_be_evaluated_fail_the_job(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          a:
            runs-on: ubuntu-latest
            outputs: {x: "${{ fromJSON('nope') }}"}
            steps: [{run: "true"}]
        """
    )

    assert jobs(lab) == {"a": "failure"}
    assert "Fail to evaluate job outputs" in lab.messages()[0]


NEEDS = """
on: push
jobs:
  bad: {{runs-on: ubuntu-latest, steps: [{{run: exit 1}}]}}
  next: {{runs-on: ubuntu-latest, needs: bad, if: {condition}, steps: [{{run: echo next}}]}}
  after: {{runs-on: ubuntu-latest, needs: next, steps: [{{run: echo after}}]}}
"""


@pytest.mark.parametrize(
    ("condition", "next_", "after"),
    [
        ("success()", "skipped", "skipped"),
        ("failure()", "success", "skipped"),
        ("always()", "success", "skipped"),
        ("needs.bad.result == 'failure'", "skipped", "skipped"),
        ("always() && needs.bad.result == 'success'", "skipped", "skipped"),
        ("'!cancelled()'", "success", "skipped"),
        ("cancelled()", "skipped", "skipped"),
    ],
)
async def test_a_failure_goes_down_the_chain(lab: Lab, condition: str, next_: str, after: str) -> None:
    """`after` needs a chain in which something failed: it is skipped even when `next` succeeds."""
    result = await lab.run(
        NEEDS.format(condition=condition.replace("'!cancelled()'", "'${{ !cancelled() }}'"))
    )

    assert jobs(lab) == {"bad": "failure", "next": next_, "after": after}
    assert result.conclusion == "failure"


async def test_a_skipped_job_skips_those_who_need_it(lab: Lab) -> None:
    result = await lab.run(
        """
        on: push
        jobs:
          a: {runs-on: ubuntu-latest, if: github.event_name == 'release', steps: [{run: echo a}]}
          b: {runs-on: ubuntu-latest, needs: a, steps: [{run: echo b}]}
          c: {runs-on: ubuntu-latest, needs: a, if: "!failure() && !cancelled()", steps: [{run: echo c}]}
        """
    )

    assert jobs(lab) == {"a": "skipped", "b": "skipped", "c": "success"}
    assert result.conclusion == "success"


async def test_a_jobs_condition_that_cannot_be_evaluated_fails_it(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          a: {runs-on: ubuntu-latest, if: "fromJSON('nope')", steps: [{run: echo a}]}
        """
    )

    assert jobs(lab) == {"a": "failure"}
    assert "Error parsing fromJson" in lab.messages()[0]


async def test_continue_on_error_of_a_job_saves_the_run(lab: Lab) -> None:
    result = await lab.run(
        """
        on: push
        jobs:
          a: {runs-on: ubuntu-latest, continue-on-error: true, steps: [{run: exit 1}]}
          b: {runs-on: ubuntu-latest, needs: a, steps: [{run: "echo ${{ needs.a.result }}"}]}
        """
    )

    assert jobs(lab) == {"a": "failure", "b": "success"}
    assert lab.output("b") == "success\n"
    assert result.conclusion == "success"


async def test_a_matrix_has_a_leg_for_each_combination(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          test:
            runs-on: ubuntu-latest
            strategy:
              matrix:
                python: ["3.11", "3.12"]
                os: [linux]
                include: [{python: "3.12", os: linux, extra: yes-please}]
            steps:
              - run: >
                  echo ${{ matrix.python }} ${{ matrix.os }} [${{ matrix.extra }}]
                  ${{ strategy.job-index }}/${{ strategy.job-total }} ${{ strategy.fail-fast }}
        """
    )

    names = [event.name for event in lab.events if isinstance(event, JobStarted)]
    assert names == ["test (3.11, linux)", "test (3.12, linux)"]
    assert jobs(lab) == {"test [3.11, linux]": "success", "test [3.12, linux]": "success"}
    assert set(lab.output("test").splitlines()) == {
        "3.11 linux [] 0/2 true",
        "3.12 linux [yes-please] 1/2 true",
    }


async def test_a_leg_that_fails_cancels_the_others(lab: Lab) -> None:
    result = await lab.run(
        """
        on: push
        jobs:
          test:
            runs-on: ubuntu-latest
            strategy: {matrix: {n: [1, 2, 3]}, max-parallel: 1}
            steps: [{run: exit 1}]
          after: {runs-on: ubuntu-latest, needs: test, if: always(), steps: [{run: "echo ${{ needs.test.result }}"}]}
        """
    )

    assert jobs(lab) == {
        "test [1]": "failure",
        "test [2]": "cancelled",
        "test [3]": "cancelled",
        "after": "success",
    }
    assert lab.output("after") == "failure\n"
    assert result.conclusion == "failure"


async def test_a_leg_that_fails_cancels_those_that_are_running(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          test:
            runs-on: ubuntu-latest
            strategy: {matrix: {n: ["sleep inf", "exit 1"]}}
            steps: [{run: "${{ matrix.n }}"}]
        """
    )

    assert jobs(lab) == {"test [sleep inf]": "cancelled", "test [exit 1]": "failure"}


@pytest.mark.parametrize("how", ["strategy: {fail-fast: false, ", "continue-on-error: true, strategy: {"])
async def test_legs_that_fail_alone(lab: Lab, how: str) -> None:
    await lab.run(
        f"""
        on: push
        jobs:
          test:
            {{runs-on: ubuntu-latest, {how} matrix: {{n: [0, 1, 0]}}}}, steps: [{{run: "exit ${{{{ matrix.n }}}}"}}]}}
        """
    )

    assert jobs(lab) == {"test [0 #1]": "success", "test [1]": "failure", "test [0 #3]": "success"}


@pytest.mark.parametrize(
    ("cpus", "limit", "most"), [(4, "", 4), (2, "", 2), (4, "max-parallel: 3, ", 3), (1, "", 1)]
)
async def test_legs_run_side_by_side_as_the_vm_and_the_job_allow(
    make_lab: Callable[..., Lab], cpus: int, limit: str, most: int
) -> None:
    import asyncio

    running = peak = 0

    async def count(_spec: ExecSpec, _call: Call) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        for _ in range(50):
            await asyncio.sleep(0)
        running -= 1
        return 0

    lab = make_lab(handler=count)
    async with lab.manager:
        await lab.run(
            f"""
            on: push
            jobs:
              test:
                runs-on: ubuntu-latest
                strategy: {{ {limit} matrix: {{n: [1, 2, 3, 4, 5, 6]}}}}
                steps: [{{run: x}}]
            """,
            spec=VmSpec(cpus=cpus),
        )

    assert peak == most


async def test_a_matrix_made_by_an_earlier_job(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          plan:
            runs-on: ubuntu-latest
            outputs: {m: "${{ steps.m.outputs.m }}"}
            steps: [{id: m, run: "echo 'm={\\"n\\":[1,2]}' >> \\"$GITHUB_OUTPUT\\""}]
          test:
            needs: plan
            runs-on: ubuntu-latest
            strategy: {matrix: "${{ fromJSON(needs.plan.outputs.m) }}"}
            steps: [{run: "echo ${{ matrix.n }}"}]
        """
    )

    assert jobs(lab) == {"plan": "success", "test [1]": "success", "test [2]": "success"}


async def test_a_matrix_that_comes_out_wrong_fails_the_job(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          plan: {runs-on: ubuntu-latest, steps: [{run: "true"}]}
          test:
            needs: plan
            runs-on: ubuntu-latest
            strategy: {matrix: {n: "${{ fromJSON(needs.plan.outputs.m || '[]') }}"}}
            steps: [{run: "echo ${{ matrix.n }}"}]
        """
    )

    assert jobs(lab)["test"] == "failure"
    assert lab.messages() == ["Job 'test': Matrix vector 'n' does not contain any values"]


async def test_a_matrix_that_excludes_everything_is_skipped(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          test:
            runs-on: ubuntu-latest
            strategy: {matrix: {n: [1], exclude: [{n: 1}]}}
            steps: [{run: "echo ${{ matrix.n }}"}]
        """
    )

    assert jobs(lab) == {"test": "skipped"}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Test", "Test (1)"),
        ("Test ${{ matrix.n }}", "Test 1"),
        ("${{ github.event_name }}", "push (1)"),
    ],
)
async def test_names_of_legs(lab: Lab, name: str, shown: str) -> None:
    await lab.run(
        f"""
        on: push
        jobs:
          test:
            name: {name}
            runs-on: ubuntu-latest
            strategy: {{matrix: {{n: [1]}}}}
            steps: [{{run: "true"}}]
        """
    )

    assert [event.name for event in lab.events if isinstance(event, JobStarted)] == [shown]


async def test_chosen_jobs_run_with_what_they_need(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          a: {runs-on: ubuntu-latest, steps: [{run: echo a}]}
          b: {runs-on: ubuntu-latest, needs: a, steps: [{run: echo b}]}
          c: {runs-on: windows-latest, steps: [{run: echo c}]}
        """,
        jobs=("b",),
    )

    assert jobs(lab) == {"a": "success", "b": "success"}
    start = lab.events[0]
    assert isinstance(start, RunStarted)
    assert list(start.jobs) == ["a", "b"]


async def test_a_chosen_job_that_is_not_there(lab: Lab) -> None:
    with pytest.raises(UsageError, match="has no job 'nope'"):
        await lab.run("on: push\njobs: {a: {runs-on: ubuntu-latest, steps: [{run: x}]}}", jobs=("nope",))


async def test_chosen_legs(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          test:
            runs-on: ubuntu-latest
            strategy: {matrix: {v: [3.9, 3.10], os: [a, b]}}
            steps: [{run: "true"}]
        """,
        matrix={"v": "3.1", "os": "b"},
    )

    assert jobs(lab) == {"test [3.1, b]": "success"}


async def test_legs_without_an_image_are_skipped_when_asked(lab: Lab) -> None:
    result = await lab.run(
        """
        on: push
        jobs:
          test:
            runs-on: ${{ matrix.os }}
            strategy: {matrix: {os: [ubuntu-latest, windows-latest]}}
            steps: [{run: "true"}]
          mac: {runs-on: macos-latest, steps: [{run: "true"}]}
          after: {runs-on: ubuntu-latest, needs: mac, steps: [{run: "true"}]}
        """,
        skip_unsupported=True,
    )

    assert jobs(lab) == {
        "test [ubuntu-latest]": "success",
        "test [windows-latest]": "skipped",
        "mac": "skipped",
        "after": "skipped",
    }
    assert len(lab.messages("warning")) == 2
    assert result.conclusion == "success"


async def test_a_label_known_only_later_that_no_image_serves_fails_the_job(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          a:
            runs-on: ubuntu-latest
            outputs: {os: windows-latest}
            steps: [{run: "true"}]
          b: {runs-on: "${{ needs.a.outputs.os }}", needs: a, steps: [{run: "true"}]}
        """
    )

    assert jobs(lab) == {"a": "success", "b": "failure"}
    assert lab.messages() == ["Job 'b': no image serves the label 'windows-latest'"]


async def test_a_job_that_takes_too_long_is_cancelled(lab: Lab) -> None:
    result = await lab.run(
        """
        on: push
        jobs:
          a:
            runs-on: ubuntu-latest
            timeout-minutes: 0.001
            steps:
              - run: sleep inf
              - run: echo never
              - run: echo still
                if: always()
        """
    )

    assert lab.finished() == {"a/1": "cancelled", "a/2": "skipped", "a/3": "success", "a": "cancelled"}
    assert lab.messages() == [
        "The job running on runner cloche has exceeded the maximum execution time of 0.001 minutes.",
        "The operation was canceled.",
    ]
    assert result.conclusion == "cancelled"


async def test_job_env_that_cannot_be_evaluated_fails_the_job(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        jobs:
          a: {runs-on: ubuntu-latest, env: {A: "${{ fromJSON('nope') }}"}, steps: [{run: "true"}]}
        """
    )

    assert jobs(lab) == {"a": "failure"}


@pytest.mark.parametrize(
    ("conclusions", "together"),
    [
        (["success", "failure", "cancelled"], "failure"),
        (["success", "cancelled", "skipped"], "cancelled"),
        (["skipped", "success"], "success"),
        (["skipped"], "skipped"),
        ([], "skipped"),
    ],
)
def test_what_conclusions_come_to(conclusions: list[Conclusion], together: str) -> None:
    assert combined(conclusions) == together
