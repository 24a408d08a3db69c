"""A ``run`` step: its script, the shell that runs it, and what becomes of it.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstepsrun
"""

from __future__ import annotations

import asyncio
import os
import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from cloche.execution.command_files import CommandFiles, Summary
from cloche.execution.contexts import TEMP, program_environment
from cloche.execution.control import stop
from cloche.execution.line_commands import Assign, CommandReader, Issue
from cloche.execution.publisher import StepResult
from cloche.execution.shells import Shell, ShellError, shell_for
from cloche.execution.step_output import StepOutputReader
from cloche.execution.step_scope import StepError
from cloche.records import record
from cloche.vm.guest import ExecSpec

if TYPE_CHECKING:
    from cloche.events import Conclusion
    from cloche.execution.control import Why
    from cloche.execution.step_scope import StepScope
    from cloche.vm.guest import ExitStatus, Process

_NOT_FOUND = 127


@record
class Ended:
    """How a program ended, and whether it was stopped."""

    status: ExitStatus
    why: Why


async def run_script(scope: StepScope) -> StepResult:
    """Carry out a ``run`` step.

    Raises StepError and EvaluationError for what keeps it from running, GuestLost and GuestTimeout when the
    guest is gone.
    """
    script = await scope.text(scope.step.run) or ""
    shell = await _shell(scope)
    files = CommandFiles()
    scope.extra = files.context()
    output = _reader(scope)
    spec = _spec(scope, shell, script, files)
    spec = replace(spec, cwd=await working_directory(scope))
    ended = await run_program(scope, spec, output)
    if shell.fallback and ended.status.error and ended.status.code == _NOT_FOUND:
        fallback = _spec(scope, shell.fallback, script, files)
        ended = await run_program(scope, replace(fallback, cwd=spec.cwd), output)
        scope.state.bash_is_missing = not ended.status.error  # else it was something else that was not found
    outputs = _take_values(scope, output, files, ended.status)
    return _result(scope, ended, output, outputs)


async def working_directory(scope: StepScope) -> str:
    """Return the folder that the step's program runs in. EvaluationError, GuestLost."""
    folder = await scope.text(scope.step.working_directory) or scope.setup.working_directory or ""
    return posixpath.join(scope.setup.workspace, folder)


async def _shell(scope: StepScope) -> Shell:
    option = await scope.text(scope.step.shell) or scope.setup.shell
    try:
        shell = shell_for(option)
    except ShellError as error:
        raise StepError(str(error)) from error
    return shell.fallback if shell.fallback and scope.state.bash_is_missing else shell


def _spec(scope: StepScope, shell: Shell, script: str, files: CommandFiles) -> ExecSpec:
    path = f"{TEMP}/{os.urandom(16).hex()}{shell.extension}"
    try:
        argv = shell.argv(path)
    except ShellError as error:
        raise StepError(str(error)) from error
    return ExecSpec(
        argv=argv,
        env=environment(scope),
        files={path: shell.script(script), **files.empty()},
        collect=tuple(files.paths.values()),
    )


def environment(scope: StepScope) -> dict[str, str]:
    """Return the whole environment of the step's program; StepError for what no program could be given."""
    setup, state = scope.setup, scope.state
    env = {**state.env, **scope.env}
    for name, value in env.items():
        if not name or "=" in name or "\0" in name + value:
            raise StepError(
                f"The environment variable '{name}' cannot be set: its name must not be empty or hold `=`, and "
                "neither name nor value may hold a null character."
            )
    return program_environment(setup.environment, env, state.path, scope.github, setup.runner)


def _reader(scope: StepScope) -> StepOutputReader:
    env = {**scope.state.env, **scope.env}
    commands = CommandReader(
        allow_unsecure=_is_true(env.get("ACTIONS_ALLOW_UNSECURE_COMMANDS")),
        allow_any_token=_is_true(env.get("ACTIONS_ALLOW_UNSECURE_STOPCOMMAND_TOKENS")),
        echo=scope.setup.debug,
    )
    setup = scope.setup
    return StepOutputReader(scope.publisher, setup.masker, setup.workspace, commands, setup.output)


def _is_true(text: str | None) -> bool:
    return (text or "").strip().lower() == "true"


async def run_program(scope: StepScope, spec: ExecSpec, output: StepOutputReader) -> Ended:
    """Run a program to its end, or until the step's time is up or the job is cancelled."""
    scope.program = spec
    process = await scope.root.exec(spec)
    scope.state.untouched = False
    ended = asyncio.create_task(_drain(process, output))
    try:
        why = await scope.watch(ended)
        if why != "ended":
            await stop(process, ended, scope.control.timing)
        return Ended(await ended, why)
    finally:
        if not ended.done():
            ended.cancel()
            await asyncio.wait({ended})


async def _drain(process: Process, output: StepOutputReader) -> ExitStatus:
    async for chunk in process.output():
        output.feed(chunk)
    status = await process.wait()
    output.close()
    return status


def _take_values(
    scope: StepScope, output: StepOutputReader, files: CommandFiles, status: ExitStatus
) -> dict[str, str]:
    """Take what the step set, in its output and then in its files, and return its outputs."""
    outputs: dict[str, str] = {}
    for effect in (*output.assigned, *files.read(status.collected)):
        match effect:
            case Assign():
                output.report(scope.state.assign(effect, outputs))
            case Issue():
                output.report(iter((effect,)))
            case Summary(markdown=markdown):
                scope.publisher.summary(markdown)
    return {} if scope.setup.masker.full else outputs


def _result(scope: StepScope, ended: Ended, output: StepOutputReader, outputs: dict[str, str]) -> StepResult:
    """Return how the step ended, and tell why if it did not end well."""
    status = ended.status
    if status.oom_kills:
        killed = "The step was" if status.code else "A process of the step was"
        scope.publisher.annotate("error", f"{killed} killed because the job ran out of memory.")
        scope.publisher.limit_reached("memory", scope.setup.memory, status.max_rss)
    outcome: Conclusion = "failure"
    if ended.why == "timeout":
        scope.tell_timed_out()
    elif ended.why == "cancelled":
        scope.tell_cancelled()
        outcome = "cancelled"
    elif status.error:
        scope.publisher.annotate("error", status.error)
    elif status.code:
        scope.publisher.annotate("error", f"Process completed with exit code {status.code}.")
    elif not output.failed:
        outcome = "success"
    usage = {"user_time": status.user_time, "system_time": status.system_time, "max_rss": status.max_rss}
    return StepResult(outcome, outcome, status.code, status.boot_id or None, outputs, usage)
