"""Steps, rule by rule, on the fake provider.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idsteps
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloche.events import Annotation, StepFinished, StepStarted
from cloche.execution.gitstate import EventInfo
from cloche.vm.guest import ExecSpec, ExitStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.vm.fake import Call
    from tests.unit.execution.conftest import Lab


async def test_a_failed_step_skips_what_does_not_ask_for_it(lab: Lab) -> None:
    await lab.steps(
        """
        - run: echo one
        - run: exit 3
        - run: echo never
        - run: echo failed
          if: failure()
        - run: echo always
          if: always()
        - run: echo neither
          if: success()
        """
    )

    assert lab.transcript[2:-2] == [
        "job started: job, 6 steps",
        "job/1 started: Run echo one",
        "job/1 wrote 'one\\n'",
        "job/1 finished: success",
        "job/2 started: Run exit 3",
        "job/2 error: Process completed with exit code 3.",
        "job/2 finished: failure",
        "job/3 finished: skipped",
        "job/4 started: Run echo failed",
        "job/4 wrote 'failed\\n'",
        "job/4 finished: success",
        "job/5 started: Run echo always",
        "job/5 wrote 'always\\n'",
        "job/5 finished: success",
        "job/6 finished: skipped",
        "job finished: failure",
    ]


async def test_continue_on_error_keeps_outcome_and_conclusion_apart(lab: Lab) -> None:
    result = await lab.steps(
        """
        - id: shaky
          run: exit 1
          continue-on-error: ${{ github.event_name == 'push' }}
        - run: echo "${{ steps.shaky.outcome }} ${{ steps.shaky.conclusion }} ${{ job.status }}"
        """
    )

    assert result.conclusion == "success"
    assert lab.finished() == {"job/1": "success (failure)", "job/2": "success", "job": "success"}
    assert lab.output(step=2) == "failure success success\n"


async def test_a_skipped_step_is_skipped_to_those_who_ask(lab: Lab) -> None:
    await lab.steps(
        """
        - id: no
          if: ${{ false }}
          run: echo never
        - run: echo ${{ steps.no.outcome }} ${{ steps.no.conclusion }}
        """
    )

    assert lab.output() == "skipped skipped\n"
    step = next(event for event in lab.events if isinstance(event, StepFinished))
    assert (step.boot_id, step.exit_code) == (None, None)


async def test_a_condition_that_cannot_be_evaluated_fails_the_step(lab: Lab) -> None:
    await lab.steps(
        """
        - run: echo never
          if: fromJSON('{')
          continue-on-error: true
        """
    )

    assert lab.finished() == {"job/1": "failure", "job": "failure"}
    assert "Error parsing fromJson" in lab.messages()[0]


async def test_env_that_cannot_be_evaluated_fails_the_step(lab: Lab) -> None:
    await lab.steps(
        """
        - run: echo never
          env:
            A: ${{ fromJSON('nope') }}
        """
    )

    assert lab.finished() == {"job/1": "failure", "job": "failure"}
    assert ".github/workflows/test.yml:8:" in lab.messages()[0]


async def test_a_script_that_cannot_be_evaluated_fails_the_step(lab: Lab) -> None:
    await lab.steps(
        """
        - run: echo ${{ fromJSON('nope') }}
          continue-on-error: true
        """
    )

    assert lab.finished() == {"job/1": "success (failure)", "job": "success"}


async def test_env_of_workflow_job_and_step(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        env: {A: workflow, B: workflow, C: workflow, N: 3.10, T: true}
        jobs:
          job:
            runs-on: ubuntu-latest
            env: {B: job, C: job}
            steps:
              - env: {C: step, D: "${{ env.B }}"}
                run: echo $A $B $C $D $N $T ${{ env.C }}
              - run: echo $A $B $C [$D]
        """
    )

    assert lab.output() == "workflow job step job 3.1 true step\nworkflow job job []\n"


async def test_env_of_the_request_lies_beneath(lab: Lab) -> None:
    await lab.steps(
        """
        - run: echo $A $B [${{ env.A }}] $CI
          env: {B: step}
        """,
        env={"A": "request", "B": "request", "CI": "no"},
    )

    assert lab.output() == "request step [] no\n"


async def test_what_a_step_writes_to_github_env_reaches_later_steps(lab: Lab) -> None:
    await lab.steps(
        """
        - run: |
            echo "A=one" >> "$GITHUB_ENV"
            echo "B<<END" >> "$GITHUB_ENV"
            echo "two" >> "$GITHUB_ENV"
            echo "three" >> "$GITHUB_ENV"
            echo "END" >> "$GITHUB_ENV"
            echo "[$A]"
        - run: echo "$A $B ${{ env.A }}"
        - run: echo "$A"
          env: {A: step}
        """
    )

    assert lab.output() == "[]\none two\nthree one\nstep\n"


async def test_default_variables_cannot_be_changed(lab: Lab) -> None:
    await lab.steps(
        """
        - run: |
            echo "GITHUB_SHA=mine" >> "$GITHUB_ENV"
            echo "RUNNER_OS=Mine" >> "$GITHUB_ENV"
            echo "GITHUB_MINE=mine" >> "$GITHUB_ENV"
            echo "CI=mine" >> "$GITHUB_ENV"
        - run: echo $GITHUB_SHA $RUNNER_OS $GITHUB_MINE $CI
          env: {GITHUB_ACTIONS: mine}
        """
    )

    assert lab.output() == f"{'0' * 40} Linux mine mine\n"


async def test_node_options_are_refused_and_the_step_goes_on(lab: Lab) -> None:
    await lab.steps(
        """
        - run: echo "NODE_OPTIONS=--inspect" >> "$GITHUB_ENV"
        - run: echo [$NODE_OPTIONS]
        """
    )

    assert lab.messages() == ["Can't store NODE_OPTIONS output parameter using '$GITHUB_ENV' command."]
    assert lab.output() == "[]\n"


async def test_outputs_by_file_and_by_command(lab: Lab) -> None:
    await lab.steps(
        """
        - id: one
          run: |
            echo "::set-output name=a::old"
            echo "b=2" >> "$GITHUB_OUTPUT"
        - run: echo ${{ steps.one.outputs.a }} ${{ steps.one.outputs.b }} [${{ steps.one.outputs.c }}]
        """
    )

    assert lab.output(step=2) == "old 2 []\n"
    step = next(event for event in lab.events if isinstance(event, StepFinished))
    assert step.outputs == {"a": "old", "b": "2"}
    assert "set-output" in lab.messages("warning")[0]


async def test_a_mistake_in_a_file_fails_the_step_and_keeps_what_stands_before_it(lab: Lab) -> None:
    await lab.steps(
        """
        - run: |
            echo "A=1" >> "$GITHUB_ENV"
            echo "nonsense" >> "$GITHUB_ENV"
        - if: always()
          run: echo $A
        """
    )

    assert lab.finished() == {"job/1": "failure", "job/2": "success", "job": "failure"}
    assert lab.messages() == [
        "Unable to process file command 'env' successfully.",
        "Invalid format 'nonsense'",
    ]
    assert lab.output() == "1\n"


async def test_folders_written_to_github_path_come_first_the_latest_before_the_others(lab: Lab) -> None:
    await lab.steps(
        """
        - run: |
            echo /opt/a >> "$GITHUB_PATH"
            echo /opt/b >> "$GITHUB_PATH"
        - run: echo /opt/a >> "$GITHUB_PATH"
        - run: echo "$PATH"
        - run: echo "$PATH"
          env: {PATH: /bin}
        """
    )

    assert lab.output(step=3).startswith("/opt/a:/opt/b:/usr/local/sbin:")
    assert lab.output(step=4) == "/opt/a:/opt/b:/bin\n"


async def test_a_summary_is_passed_on(lab: Lab) -> None:
    await lab.steps(
        """
        - run: |
            echo "# Done" >> "$GITHUB_STEP_SUMMARY"
        - run: "true"
        """
    )

    assert [line for line in lab.transcript if "summary" in line] == ["job/1 summary '# Done\\n'"]


async def test_a_summary_too_long_is_an_error_that_fails_nothing(lab: Lab) -> None:
    await lab.steps('- run: head -c 2000000 /dev/zero >> "$GITHUB_STEP_SUMMARY"')

    assert lab.finished()["job/1"] == "success"
    assert "GITHUB_STEP_SUMMARY upload aborted" in lab.messages()[0]


async def test_a_file_longer_than_the_host_reads_fails_the_step(lab: Lab) -> None:
    await lab.steps('- run: head -c 5000000 /dev/zero >> "$GITHUB_OUTPUT"')

    assert lab.messages() == [
        "Unable to process file command 'output' successfully.",
        "The file is longer than the 4 MiB that are read of it.",
    ]


async def test_command_files_are_fresh_for_each_step(lab: Lab) -> None:
    await lab.steps(
        """
        - run: echo "a=1" >> "$GITHUB_OUTPUT"; rm "$GITHUB_ENV"
        - run: cat "$GITHUB_OUTPUT"; test -f "$GITHUB_ENV"
        """
    )

    assert lab.output() == ""
    assert lab.finished() == {"job/1": "success", "job/2": "success", "job": "success"}


async def test_annotations_groups_and_debug_lines(lab: Lab) -> None:
    await lab.steps(
        """
        - run: |
            echo "::group::Build"
            echo "inside"
            echo "::endgroup::"
            echo "::error file=$GITHUB_WORKSPACE/src/a.py,line=3,title=Oh::no"
            echo "::debug::deep"
            echo "::notice::fine"
        """
    )

    assert lab.transcript[4:-4] == [
        "job/1 group Build",
        "job/1 wrote 'inside\\n'",
        "job/1 group None",
        "job/1 error: no",
        "job/1 debug: deep",
        "job/1 notice: fine",
    ]
    error = next(event for event in lab.events if isinstance(event, Annotation))
    assert (error.file, error.line, error.title) == ("src/a.py", 3, "Oh")
    assert lab.finished()["job/1"] == "success"


async def test_a_command_that_cannot_be_carried_out_fails_the_step(lab: Lab) -> None:
    await lab.steps('- run: echo "::set-env name=A::1"')

    assert lab.finished()["job/1"] == "failure"
    assert lab.messages()[0] == "Unable to process command '::set-env name=A::1' successfully."


async def test_unsecure_commands_where_allowed(lab: Lab) -> None:
    await lab.steps(
        """
        - run: |
            echo "::set-env name=A::1"
            echo "::add-path::/opt/x"
          env: {ACTIONS_ALLOW_UNSECURE_COMMANDS: true}
        - run: echo $A $PATH
        """
    )

    assert lab.output().startswith("1 /opt/x:")


async def test_annotations_of_a_level_are_bounded(lab: Lab) -> None:
    await lab.steps(
        "- run: for i in a b c d e; do for j in 1 2 3 4 5 6 7 8 9 0; do for k in 1 2 3; do "
        "echo ::error::$i$j$k; done; done; done"
    )

    assert len(lab.messages()) == 100
    assert lab.output().count("##[error]") == 50


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ("run: echo hi", "Run echo hi"),
        ("run: |\n      \n      first\n      second", "Run first"),
        ("name: Say hi\n  run: echo hi", "Say hi"),
        ("name: Say ${{ github.event_name }}\n  run: echo hi", "Say push"),
        ("name: ${{ env.WHO }}\n  env: {WHO: me}\n  run: echo hi", "me"),
        ("run: echo ${{ github.event_name }}", "Run echo push"),
        ("name: ${{ fromJSON('nope') }}\n  run: echo hi", "${{ fromJSON('nope') }}"),
    ],
)
async def test_names(lab: Lab, keys: str, name: str) -> None:
    await lab.steps(f"- {keys}")

    assert next(event for event in lab.events if isinstance(event, StepStarted)).name == name


async def test_working_directories(lab: Lab) -> None:
    await lab.run(
        """
        on: push
        defaults: {run: {working-directory: /tmp}}
        jobs:
          job:
            runs-on: ubuntu-latest
            steps:
              - run: pwd; mkdir -p $GITHUB_WORKSPACE/sub/deep
              - {run: pwd, working-directory: sub}
              - {run: pwd, working-directory: "${{ github.workspace }}/sub/deep"}
          other:
            runs-on: ubuntu-latest
            defaults: {run: {working-directory: ../}}
            steps: [{run: pwd}]
        """
    )

    workspace = "/home/runner/work/workspace/workspace"
    assert lab.output("job") == f"/tmp\n{workspace}/sub\n{workspace}/sub/deep\n"
    assert lab.output("other") == "/home/runner/work/workspace\n"


async def test_a_missing_working_directory_fails_the_step(lab: Lab) -> None:
    await lab.steps("- {run: echo never, working-directory: nowhere}")

    assert lab.finished()["job/1"] == "failure"
    assert "nowhere" in lab.messages()[0]


async def test_shells_and_their_defaults(make_lab: Callable[..., Lab]) -> None:
    started: list[tuple[str, ...]] = []

    async def note(spec: ExecSpec, _call: Call) -> int:
        started.append(tuple(word if "_temp" not in word else "{0}" for word in spec.argv))
        return 0

    lab = make_lab(handler=note)
    async with lab.manager:
        await lab.run(
            """
            on: push
            defaults: {run: {shell: sh}}
            jobs:
              job:
                runs-on: ubuntu-latest
                defaults: {run: {shell: bash}}
                steps:
                  - run: a
                  - {run: b, shell: python}
                  - {run: c, shell: "perl -w {0} x"}
                  - {run: d, shell: pwsh}
              other:
                runs-on: ubuntu-latest
                steps: [{run: e}]
            """
        )

    assert started[0] == ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "{0}")
    assert ("python", "{0}") in started
    assert ("perl", "-w", "{0}", "x") in started
    assert ("sh", "-e", "{0}") in started


async def test_bash_without_pipefail_when_no_shell_is_named(make_lab: Callable[..., Lab]) -> None:
    started: list[str] = []

    async def note(spec: ExecSpec, _call: Call) -> int:
        started.append(" ".join(spec.argv[:-1]))
        return 0

    lab = make_lab(handler=note)
    async with lab.manager:
        await lab.steps("- run: a")

    assert started == ["bash -e"]


async def test_sh_where_bash_is_missing_asked_for_once(make_lab: Callable[..., Lab]) -> None:
    started: list[str] = []

    async def no_bash(spec: ExecSpec, _call: Call) -> ExitStatus | int:
        started.append(" ".join(spec.argv[:-1]))
        return ExitStatus(127, error="bash: not found") if spec.argv[0] == "bash" else 0

    lab = make_lab(handler=no_bash)
    async with lab.manager:
        await lab.steps("- run: a\n- run: b")

    assert started == ["bash -e", "sh -e", "sh -e"]
    assert lab.finished() == {"job/1": "success", "job/2": "success", "job": "success"}


async def test_a_folder_that_is_missing_is_not_taken_for_bash(make_lab: Callable[..., Lab]) -> None:
    started: list[str] = []

    async def no_folder(spec: ExecSpec, _call: Call) -> ExitStatus | int:
        started.append(spec.argv[0])
        return ExitStatus(127, error=f"{spec.cwd}: not found") if spec.cwd.endswith("nowhere") else 0

    lab = make_lab(handler=no_folder)
    async with lab.manager:
        await lab.steps("- {run: a, working-directory: nowhere, continue-on-error: true}\n- run: b")

    assert started == ["bash", "sh", "bash"]
    assert lab.finished()["job/2"] == "success"


async def test_a_shell_that_is_missing_fails_the_step(lab: Lab) -> None:
    await lab.steps("- {run: Get-Date, shell: pwsh}")

    assert lab.finished()["job/1"] == "failure"
    assert "pwsh" in lab.messages()[0]


async def test_a_shell_from_an_expression_that_is_none(lab: Lab) -> None:
    await lab.steps("- {run: x, shell: \"${{ 'zsh' }}\"}")

    assert "Shell must be a valid built-in" in lab.messages()[0]


async def test_a_step_out_of_memory_is_said_to_be(lab: Lab) -> None:
    await lab.steps("- run: fake oom")

    assert lab.finished()["job/1"] == "failure"
    assert lab.messages()[0] == "The step was killed because the job ran out of memory."


async def test_a_step_that_takes_too_long(lab: Lab) -> None:
    result = await lab.steps(
        """
        - name: Wait
          run: sleep inf
          timeout-minutes: 0.001
        - run: echo after
          if: failure()
        """
    )

    assert result.conclusion == "failure"
    assert lab.finished() == {"job/1": "failure", "job/2": "success", "job": "failure"}
    assert lab.messages() == ["The action 'Wait' has timed out after 0.001 minutes."]


async def test_a_timeout_that_is_none(lab: Lab) -> None:
    await lab.steps("- {run: echo hi, timeout-minutes: \"${{ fromJSON('{}') }}\"}")

    assert lab.messages()[0] == "An error occurred when attempting to determine the step timeout."
    assert lab.finished()["job/1"] == "success"


async def test_continue_on_error_that_is_none(lab: Lab) -> None:
    await lab.steps('- {run: exit 1, continue-on-error: "${{ github.sha }}"}')

    assert lab.finished()["job/1"] == "failure"
    assert "whether to continue on error" in lab.messages()[1]


async def test_a_variable_that_no_program_can_have(lab: Lab) -> None:
    await lab.steps('- {run: echo never, env: {"A=B": 1}}')

    assert "environment variable 'A=B' cannot be set" in lab.messages()[0]


async def test_default_variables_and_contexts(lab: Lab) -> None:
    await lab.steps(
        """
        - id: mine
          run: |
            echo $GITHUB_ACTION $GITHUB_ACTIONS $GITHUB_JOB $GITHUB_WORKFLOW $RUNNER_TEMP $RUNNER_TOOL_CACHE
            echo ${{ github.action }} ${{ github.job }} ${{ runner.os }} ${{ runner.temp }} ${{ job.status }}
            echo $HOME $USER $GITHUB_REF_NAME ${{ github.event.repository.default_branch }}
            cat "$GITHUB_EVENT_PATH"
        - run: echo $GITHUB_ACTION
        - run: echo $GITHUB_ACTION
        """
    )

    assert lab.output(step=1).split("\n")[:3] == [
        "mine true job .github/workflows/test.yml /home/runner/work/_temp /opt/hostedtoolcache",
        "mine job Linux /home/runner/work/_temp success",
        "/home/runner runner main",
    ]
    assert lab.output(step=1).split("\n")[3] == "{}"
    assert lab.output(step=2) + lab.output(step=3) == "__run\n__run_2\n"


async def test_secrets_vars_and_debug(lab: Lab) -> None:
    await lab.steps(
        "- run: echo ${{ vars.REGION }} ${{ secrets.token == 'hunter2' }} [${{ secrets.other }}] $RUNNER_DEBUG",
        secrets={"TOKEN": "hunter2"},
        vars={"REGION": "eu", "ACTIONS_STEP_DEBUG": "true"},
    )

    assert lab.output() == "eu true [] 1\n"


async def test_inputs_have_their_types_and_in_the_event_they_are_text(lab: Lab) -> None:
    await lab.run(
        """
        on: {workflow_dispatch: {inputs: {fast: {type: boolean}, name: {default: mona}}}}
        jobs:
          job:
            runs-on: ubuntu-latest
            steps:
              - if: inputs.fast && github.event.inputs.fast == 'true'
                run: echo ${{ inputs.name }} ${{ github.event.inputs.name }}; cat "$GITHUB_EVENT_PATH"
        """,
        event=EventInfo("workflow_dispatch", payload={"ref": "r"}),
        inputs={"fast": "true"},
    )

    assert lab.output() == 'mona mona\n{"ref": "r", "inputs": {"fast": "true", "name": "mona"}}\n'


async def test_hash_files_is_asked_of_the_guest(lab: Lab) -> None:
    await lab.steps(
        """
        - run: echo 1 > a.txt
        - run: |
            echo ${{ hashFiles('*.txt') == hashFiles('a.txt') }}
            echo [${{ hashFiles('none') }}]
          if: hashFiles('*.txt') != ''
        - run: echo ${{ hashFiles('--follow-symbolic-links', '*') }}
        """
    )

    assert lab.output(step=2) == "true\n[]\n"
    assert lab.finished()["job/3"] == "failure"


async def test_usage_and_exit_codes_are_told(make_lab: Callable[..., Lab]) -> None:
    async def busy(_spec: ExecSpec, _call: Call) -> ExitStatus:
        return ExitStatus(0, user_time=1.5, system_time=0.5, max_rss=1024, boot_id="b")

    lab = make_lab(handler=busy)
    async with lab.manager:
        await lab.steps("- run: x")

    step = next(event for event in lab.events if isinstance(event, StepFinished))
    assert step.usage == {"user_time": 1.5, "system_time": 0.5, "max_rss": 1024}
    assert (step.exit_code, step.boot_id) == (0, "b")


async def test_each_step_costs_one_program(make_lab: Callable[..., Lab]) -> None:
    started: list[ExecSpec] = []

    async def note(spec: ExecSpec, _call: Call) -> int:
        started.append(spec)
        return 0

    lab = make_lab(handler=note)
    async with lab.manager:
        await lab.steps("\n".join("- run: x" for _ in range(100)))

    assert len(started) == 100
