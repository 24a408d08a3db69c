"""The fake's shell: carries out the tree that ``syntax`` reads, as bash or sh would.

The commands that change the shell itself (``cd``, ``export``, ``trap``, …) are in ``shell_commands``;
everything else is a program of ``programs`` or a script in the job's file system.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
from dataclasses import field, replace
from typing import TYPE_CHECKING

from cloche.records import record
from cloche.vm.fake import syntax, tree, words
from cloche.vm.fake.launch import NOT_EXECUTABLE, NOT_FOUND, SIGNALLED, execute, find_program
from cloche.vm.fake.streams import (
    Call,
    Empty,
    FileOutput,
    Input,
    Memory,
    Output,
    Pipe,
    Streams,
    decode,
    encode,
    open_input,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloche.vm.fake.process import FakeTask

SYNTAX = 2
"""The status of a script that cannot be read, or of a command used wrongly."""
_OPTIONS = {"e": "errexit", "u": "nounset", "x": "xtrace"}
_LONG_OPTIONS = {*_OPTIONS.values(), "pipefail"}
_STARTUP = {"--noprofile", "--norc", "--posix", "--login", "-l", "-"}  # there is nothing to start up from
_DESCRIPTORS = {0: "stdin", 1: "stdout", 2: "stderr"}


class ShellExit(Exception):  # noqa: N818 - control flow, not an error
    """The shell ends with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@record(frozen=False)
class Shell:
    """One shell process, or a copy of one for a subshell. ``inline``: its script came by ``-c``."""

    name: str
    task: FakeTask
    variables: dict[str, str]
    exported: set[str]
    cwd: str
    parameters: list[str] = field(default_factory=list)
    options: set[str] = field(default_factory=set)
    inline: bool = False
    status: int = 0
    line: int = 1
    background: int | None = None

    def copy(self) -> Shell:
        """Make what a subshell starts with."""
        return replace(
            self,
            variables=dict(self.variables),
            exported=set(self.exported),
            parameters=list(self.parameters),
            options=set(self.options),
        )

    # Variables

    @property
    def env(self) -> dict[str, str]:
        """What programs inherit."""
        return {name: value for name, value in self.variables.items() if name in self.exported}

    def assign(self, name: str, value: str) -> None:
        """Set a variable."""
        self.variables[name] = value

    def value(self, name: str) -> str | None:
        """Read a variable, a positional parameter or one of ``?$!#@*-``; ``None`` when it is not set."""
        if name.isdecimal() and name != "0":
            return self.parameters[int(name) - 1] if int(name) <= len(self.parameters) else None
        special = {
            "0": self.name,
            "?": str(self.status),
            "$": str(self.task.pid),
            "!": "" if self.background is None else str(self.background),
            "#": str(len(self.parameters)),
            "@": " ".join(self.parameters),
            "*": " ".join(self.parameters),
            "-": "".join(letter for letter, option in _OPTIONS.items() if option in self.options),
        }
        return special[name] if name in special else self.variables.get(name)

    # Scripts

    async def main(self, text: str, streams: Streams) -> int:
        """Run a script as a whole process: to its end or its ``exit``, then the EXIT trap; its status."""
        self.status = await self._to_its_end(text, streams)
        action = self.task.traps.pop(0, None)
        if action:
            status = self.status
            ended = await self._to_its_end(f"{action}\n", streams, otherwise=status)
            self.status = ended
        return self.status

    async def _to_its_end(self, text: str, streams: Streams, otherwise: int | None = None) -> int:
        try:
            status = await self.run_text(text, streams)
        except ShellExit as end:
            return end.status
        return status if otherwise is None else otherwise

    async def run_text(self, text: str, streams: Streams) -> int:
        """Run a script to its end; its status. ShellExit passes through."""
        try:
            script = syntax.parse(text)
        except syntax.ShellSyntaxError as wrong:
            await self.say(str(wrong), streams, line=wrong.line)
            raise ShellExit(SYNTAX) from wrong
        except RecursionError:
            await self.say("nested too deeply for the fake shell", streams)
            raise ShellExit(SYNTAX) from None
        return await self.run(script, streams)

    async def run(self, script: tree.Script, streams: Streams, *, tested: bool = False) -> int:
        """Run commands one after another; ``tested`` says that a failure is looked at and ends nothing."""
        status = 0
        for part in script:
            if part.background:
                self._start_background(part, streams)
                status = 0
            else:
                status = await self.and_or(part, streams, tested=tested)
            self.status = status
            await self._run_traps(streams)
        return status

    async def _run_traps(self, streams: Streams) -> None:
        while self.task.pending:
            action = self.task.traps.get(self.task.pending.pop(0), "")
            status = self.status
            await self.run_text(action, streams)
            self.status = status

    def _start_background(self, part: tree.AndOr, streams: Streams) -> None:
        shell = self.copy()
        quiet = replace(streams, stdin=Empty())

        async def work(task: FakeTask) -> int:
            shell.task = task
            try:
                return await shell.and_or(part, quiet)
            except ShellExit as end:
                return end.status

        self.background = self.task.start_child(work).pid

    async def and_or(self, part: tree.AndOr, streams: Streams, *, tested: bool = False) -> int:
        """Run pipelines joined by ``&&`` and ``||``; the status of the last one that ran."""
        status = 0
        for number, (operator, pipeline) in enumerate(part.parts, 1):
            if (operator == "&&" and status != 0) or (operator == "||" and status == 0):
                continue
            looked_at = tested or number < len(part.parts)
            status = await self._pipeline(pipeline, streams, tested=looked_at)
            self.status = status
        return status

    async def _pipeline(self, pipeline: tree.Pipeline, streams: Streams, *, tested: bool) -> int:
        looked_at = tested or pipeline.negated
        if len(pipeline.commands) == 1:
            status = await self.command(pipeline.commands[0], streams, tested=looked_at)
        else:
            status = await self._piped(pipeline.commands, streams, tested=looked_at)
        if pipeline.negated:
            return int(status == 0)
        if status != 0 and not tested and "errexit" in self.options and _counts(pipeline):
            await self._run_traps(streams)
            raise ShellExit(status)
        return status

    async def _piped(self, commands: Sequence[tree.Command], streams: Streams, *, tested: bool) -> int:
        pipes = [Pipe() for _ in commands[1:]]
        inputs: list[Input] = [streams.stdin, *pipes]
        outputs: list[Output] = [*pipes, streams.stdout]

        async def part(number: int) -> int:
            own = replace(streams, stdin=inputs[number], stdout=outputs[number])
            try:
                return await self.copy().command(commands[number], own, tested=tested)
            except ShellExit as end:
                return end.status
            except BrokenPipeError:
                return SIGNALLED + signal.SIGPIPE
            finally:
                for pipe in pipes[number : number + 1]:
                    pipe.end()
                for pipe in pipes[number - 1 : number]:
                    pipe.abandon()

        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(part(number)) for number in range(len(commands))]
        results = [task.result() for task in parts]
        if "pipefail" in self.options:
            return next((status for status in reversed(results) if status), 0)
        return results[-1]

    # Commands

    async def command(self, command: tree.Command, streams: Streams, *, tested: bool) -> int:
        """Run one command with its redirects; what the file system refuses is said and fails it."""
        try:
            if isinstance(command, tree.Simple):
                return await self._simple(command, streams)
            streams = await self._redirect(command.redirects, streams)
        except BrokenPipeError:
            raise
        except OSError as wrong:
            return await self.say(f"{wrong.filename}: {wrong.strerror}", streams)
        match command:
            case tree.Group(script=script, subshell=subshell):
                return await self.group(script, streams, tested=tested, subshell=subshell)
            case tree.If():
                return await self._if(command, streams, tested=tested)
            case tree.For():
                return await self._for(command, streams, tested=tested)
            case tree.While():
                return await self._while(command, streams, tested=tested)

    async def group(self, script: tree.Script, streams: Streams, *, tested: bool, subshell: bool) -> int:
        """Run a script that a subshell's ``exit`` does not leave."""
        if not subshell:
            return await self.run(script, streams, tested=tested)
        try:
            return await self.copy().run(script, streams, tested=tested)
        except ShellExit as end:
            return end.status

    async def _if(self, command: tree.If, streams: Streams, *, tested: bool) -> int:
        for condition, body in command.branches:
            if condition is None or await self.run(condition, streams, tested=True) == 0:
                return await self.run(body, streams, tested=tested)
        return 0

    async def _for(self, command: tree.For, streams: Streams, *, tested: bool) -> int:
        status = 0
        values = (
            self.parameters if command.words is None else await words.fields(self, command.words, streams)
        )
        for value in values:
            self.assign(command.name, value)
            status = await self.run(command.body, streams, tested=tested)
            await asyncio.sleep(0)
        return status

    async def _while(self, command: tree.While, streams: Streams, *, tested: bool) -> int:
        status = 0
        while (await self.run(command.condition, streams, tested=True) == 0) != command.negated:
            status = await self.run(command.body, streams, tested=tested)
            await asyncio.sleep(0)
        return status

    async def _simple(self, command: tree.Simple, streams: Streams) -> int:
        from cloche.vm.fake.shell_commands import COMMANDS  # which are written for this class

        self.line = command.line
        self.status, before = (
            0,
            self.status,
        )  # $? in the words is the last command's; after $(…) it is that one's
        self.status = before
        arguments = await words.fields(self, command.words, streams)
        values = {name: await words.joined(self, word, streams) for name, word in command.assignments}
        own_streams = await self._redirect(command.redirects, streams)
        if not arguments:
            self.variables |= values
            return self.status if _substitutes(command) else 0
        await self._trace(arguments, streams)
        if arguments[0] in COMMANDS:
            self.variables |= values
            return await COMMANDS[arguments[0]](self, arguments, own_streams)
        return await self.program(arguments, {**self.env, **values}, own_streams)

    async def _trace(self, arguments: Sequence[str], streams: Streams) -> None:
        if "xtrace" in self.options:
            await streams.stderr.write(encode(f"+ {' '.join(arguments)}\n"))

    async def program(
        self, argv: Sequence[str], env: dict[str, str], streams: Streams, *, replacing: bool = False
    ) -> int:
        """Run a program, in this process or in a new one, to its end; 127 or 126, said, when there is none."""
        if find_program(self.task.files, argv[0], env, self.cwd) is None:
            problem = "No such file or directory" if "/" in argv[0] else "command not found"
            return await self.say(f"{argv[0]}: {problem}", streams, status=NOT_FOUND)

        async def work(task: FakeTask) -> int:
            return await execute(Call(argv, env, self.cwd, streams, task))

        try:
            if replacing:
                self.task.traps = self.task.ignored
                return await work(self.task)
            return await self.task.run_child(work)
        except PermissionError as wrong:
            return await self.say(f"{wrong.filename}: {wrong.strerror}", streams, status=NOT_EXECUTABLE)

    async def substitute(self, script: tree.Script, streams: Streams) -> str:
        """Run a script and take its output, without the newlines at its end."""
        sink = Memory()
        self.status = await self.copy().group(
            script, replace(streams, stdout=sink), tested=True, subshell=True
        )
        return decode(sink.data).rstrip("\n").replace("\0", "")

    # Redirects

    async def _redirect(self, redirects: Sequence[tree.Redirect], streams: Streams) -> Streams:
        for redirect in redirects:
            target = await words.joined(self, redirect.target, streams)
            streams = self._redirected(redirect, target, streams)
        return streams

    def _redirected(self, redirect: tree.Redirect, target: str, streams: Streams) -> Streams:
        name = _DESCRIPTORS.get(redirect.descriptor)
        new: Input | Output
        match redirect.operator:
            case _ if name is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF), str(redirect.descriptor))
            case "<":
                new = open_input(self.task.files, target, self.cwd)
            case "<<":
                new = Memory(encode(target))
            case ">&" if target in {"1", "2"}:
                new = streams.stdout if target == "1" else streams.stderr
            case ">" | ">>":
                self.task.files.write(target, b"", self.cwd, append=redirect.operator == ">>")
                new = FileOutput(self.task.files, target, self.cwd)
            case _:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF), target)
        return replace(streams, **{name: new})  # type: ignore[arg-type] # the name decides which of the two it is

    # Messages

    async def say(self, text: str, streams: Streams, *, status: int = 1, line: int | None = None) -> int:
        """Write a message to standard error as bash words it; ``status``, to return with."""
        await streams.stderr.write(encode(f"{self.name}: line {line or self.line}: {text}\n"))
        return status

    async def give_up(self, text: str, streams: Streams) -> None:
        """Say why and end the shell."""
        raise ShellExit(await self.say(text, streams, status=NOT_FOUND if self.inline else 1))


def _counts(pipeline: tree.Pipeline) -> bool:
    """Whether ``set -e`` looks at its status; what fails inside ``{ }``, ``if`` or a loop has been looked at."""
    command = pipeline.commands[-1]
    whole = isinstance(command, tree.Simple) or (isinstance(command, tree.Group) and command.subshell)
    return whole or len(pipeline.commands) > 1


def _substitutes(command: tree.Simple) -> bool:
    return any(isinstance(part, tree.Substitution) for _, word in command.assignments for part in word)


async def bash(call: Call) -> int:
    """Be ``bash`` or ``sh``: run a script from a file, from ``-c`` or from standard input."""
    options: set[str] = set()
    given = [word for word in call.argv[1:] if word not in _STARTUP]
    command = next((n for n, word in enumerate(given) if re.fullmatch(r"-[eux]*c", word)), None)
    if command is not None:
        given[command] = given[command][:-1]
    rest = set_options(options, [word for word in given if word != "-"])
    if rest is None or (command is not None and not rest):
        await call.complain(f"{' '.join(call.argv[1:])}: options the fake shell does not know")
        return SYNTAX
    name = call.argv[0]
    if command is not None:
        text, *rest = rest
        name, rest = (rest[0], rest[1:]) if rest else (name, [])
    elif rest:
        name, *rest = rest
        try:
            text = decode(call.task.files.read(name, call.cwd))
        except OSError as wrong:
            await call.complain(f"{name}: {wrong.strerror}")
            return NOT_FOUND
    else:
        text = decode(await _drain(call.streams.stdin))
    variables = {**call.env, "PWD": call.cwd}
    shell = Shell(name, call.task, variables, set(variables), call.cwd, rest, options, command is not None)
    return await shell.main(text, call.streams)


async def _drain(source: Input) -> bytes:
    data = bytearray()
    while chunk := await source.read():
        data += chunk
    return bytes(data)


def set_options(options: set[str], given: Sequence[str]) -> list[str] | None:
    """Apply ``-e``, ``+x``, ``-o pipefail`` …; the words that are left, or ``None`` for an unknown option."""
    rest = list(given)
    while rest and rest[0][:1] in {"-", "+"} and len(rest[0]) > 1:
        word = rest.pop(0)
        if word == "--":
            break
        change = options.add if word[0] == "-" else options.discard
        for letter in word[1:]:
            name = rest.pop(0) if letter == "o" and rest else _OPTIONS.get(letter, "")
            if name not in _LONG_OPTIONS:
                return None
            change(name)
    return rest
