"""The fake's shell: carries out the tree that ``syntax`` reads, as bash or sh would.

Its own commands (``cd``, ``export``, ``set``, ``trap``, …) live here; everything else is a program of
``programs`` or a script in the job's file system.
"""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
import signal
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from cloche.vm.fake import syntax
from cloche.vm.fake.files import Device, File, Folder, Program, error
from cloche.vm.fake.pipe import Empty, Input, Output, Pipe

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from cloche.vm.fake.process import FakeTask

NOT_FOUND = 127
NOT_EXECUTABLE = 126
SIGNALLED = 128
SYNTAX = 2
MAX_SUBSTITUTED = 4 * 1024 * 1024
"""Bytes that ``$(…)`` takes before the shell gives up."""
DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Streams:
    """A program's standard input, output and error."""

    stdin: Input
    stdout: Output
    stderr: Output


@dataclass(frozen=True, slots=True)
class Call:
    """One program about to run: what the kernel would hand to it."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    streams: Streams
    task: FakeTask

    async def print(self, text: str) -> None:
        """Write text to standard output."""
        await self.streams.stdout.write(text.encode(errors="surrogateescape"))

    async def complain(self, text: str) -> int:
        """Write a line to standard error; 1, to return with."""
        await self.streams.stderr.write(f"{self.argv[0]}: {text}\n".encode(errors="surrogateescape"))
        return 1


class ShellExit(Exception):  # noqa: N818 - control flow, not an error
    """The shell ends with this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _FileOutput:
    """A file opened for appending."""

    def __init__(self, task: FakeTask, path: str, cwd: str) -> None:
        self._task, self._path, self._cwd = task, path, cwd

    async def write(self, data: bytes) -> None:
        self._task.files.write(self._path, data, self._cwd, append=True)


class Memory:
    """An input or output of bytes in memory, at most MAX_SUBSTITUTED of them."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self._at = 0

    async def read(self, limit: int) -> bytes:
        """The next bytes."""
        chunk = self.data[self._at : self._at + limit]
        self._at += len(chunk)
        return chunk

    async def write(self, data: bytes) -> None:
        """Keep the bytes."""
        if len(self.data) + len(data) > MAX_SUBSTITUTED:
            raise error(errno.ENOMEM, "$(…)")
        self.data += data


class Zeros:
    """``/dev/zero``."""

    async def read(self, limit: int) -> bytes:
        """Zeros without end; gives others their turn."""
        await asyncio.sleep(0)
        return bytes(limit)


def open_input(task: FakeTask, path: str, cwd: str) -> Input:
    """The file or device at ``path``, to be read."""
    match task.files.find(path, cwd):
        case Device(name="zero"):
            return Zeros()
        case File(content=content):
            return Memory(bytes(content))
        case Folder():
            raise error(errno.EISDIR, path)
        case _:
            return Empty()


def find_program(task: FakeTask, name: str, env: Mapping[str, str], cwd: str) -> str | None:
    """Where ``execvp`` would find the program; ``None`` if nowhere."""
    if "/" in name:
        return name if task.files.lookup(name, cwd) is not None else None
    for folder in env.get("PATH", DEFAULT_PATH).split(":"):
        path = posixpath.join(folder or ".", name)
        node = task.files.lookup(path, cwd)
        if node is not None and not isinstance(node, Folder) and node.mode & 0o111:
            return path
    return None


async def execute(call: Call) -> int:
    """Run a program as ``execvp`` would: a program of the fake's own, or a script by its first line.

    FileNotFoundError or PermissionError when there is no such program.
    """
    from cloche.vm.fake.programs import PROGRAMS  # it needs this module too

    path = find_program(call.task, call.argv[0], call.env, call.cwd)
    if path is None:
        raise error(errno.ENOENT, call.argv[0])
    node = call.task.files.find(path, call.cwd)
    if isinstance(node, Program):
        return await PROGRAMS[node.name](call)
    if not isinstance(node, File) or not node.mode & 0o111:
        raise error(errno.EACCES, call.argv[0])
    first = bytes(node.content).split(b"\n", 1)[0].decode(errors="replace")
    interpreter = first[2:].split(None, 1) if first.startswith("#!") else ["/bin/sh"]
    return await execute(replace(call, argv=[*interpreter, path, *call.argv[1:]]))


@dataclass(slots=True)
class Shell:
    """One shell process, or a copy of one for a subshell."""

    name: str
    task: FakeTask
    variables: dict[str, str]
    exported: set[str]
    cwd: str
    parameters: list[str] = field(default_factory=list)
    options: set[str] = field(default_factory=set)
    status: int = 0
    line: int = 1
    background: int | None = None

    @classmethod
    def start(cls, call: Call, name: str) -> Shell:
        """A shell with the environment of a call."""
        shell = cls(name, call.task, dict(call.env), set(call.env), call.cwd)
        shell.assign("PWD", call.cwd, export=True)
        return shell

    def copy(self) -> Shell:
        """What a subshell starts with."""
        return replace(
            self,
            variables=dict(self.variables),
            exported=set(self.exported),
            parameters=list(self.parameters),
            options=set(self.options),
        )

    def assign(self, name: str, value: str, *, export: bool = False) -> None:
        """Set a variable."""
        self.variables[name] = value
        if export:
            self.exported.add(name)

    @property
    def env(self) -> dict[str, str]:
        """What programs inherit."""
        return {name: value for name, value in self.variables.items() if name in self.exported}

    async def run_text(self, text: str, streams: Streams) -> int:
        """Run a script to its end; its status. ShellExit passes through."""
        try:
            script = syntax.parse(text)
        except syntax.ShellSyntaxError as wrong:
            await _say(streams, f"{self.name}: line {wrong.line}: {wrong}")
            raise ShellExit(SYNTAX) from wrong
        except RecursionError:
            await _say(streams, f"{self.name}: the script is nested too deeply for the fake shell")
            raise ShellExit(SYNTAX) from None
        return await self.run(script, streams)

    async def main(self, text: str, streams: Streams) -> int:
        """Run a script as a whole process: to its end or its ``exit``, then the EXIT trap."""
        try:
            await self.run_text(text, streams)
        except ShellExit as end:
            self.status = end.status
        action = self.task.traps.pop(0, None)
        if action:
            status = self.status
            try:
                await self.run_text(action, streams)
                self.status = status
            except ShellExit as end:
                self.status = end.status
        return self.status

    async def run(self, script: syntax.Script, streams: Streams, *, tested: bool = False) -> int:
        """Run commands one after another; ``tested`` says that a failure is looked at and ends nothing."""
        self.status = 0
        for part in script:
            if part.background:
                self._start_background(part, streams)
                self.status = 0
            else:
                self.status = await self._and_or(part, streams, tested=tested)
            await self._run_traps(streams)
        return self.status

    async def _run_traps(self, streams: Streams) -> None:
        while self.task.pending:
            action = self.task.traps.get(self.task.pending.pop(0), "")
            status = self.status
            await self.run_text(action, streams)
            self.status = status

    def _start_background(self, part: syntax.AndOr, streams: Streams) -> None:
        shell = self.copy()
        quiet = replace(streams, stdin=Empty())

        async def work(task: FakeTask) -> int:
            shell.task = task
            try:
                return await shell._and_or(part, quiet, tested=False)
            except ShellExit as end:
                return end.status

        self.background = self.task.start_child(work).pid

    async def _and_or(self, part: syntax.AndOr, streams: Streams, *, tested: bool) -> int:
        status = 0
        for number, (operator, pipeline) in enumerate(part.parts, 1):
            if (operator == "&&" and status != 0) or (operator == "||" and status == 0):
                continue
            last = number == len(part.parts)
            status = await self._pipeline(pipeline, streams, tested=tested or not last)
            self.status = status
        return status

    async def _pipeline(self, pipeline: syntax.Pipeline, streams: Streams, *, tested: bool) -> int:
        looked_at = tested or pipeline.negated
        if len(pipeline.commands) == 1:
            status = await self._command(pipeline.commands[0], streams, tested=looked_at)
        else:
            status = await self._piped(pipeline.commands, streams, tested=looked_at)
        if pipeline.negated:
            return int(status == 0)
        if status != 0 and not tested and "errexit" in self.options:
            await self._run_traps(streams)
            raise ShellExit(status)
        return status

    async def _piped(self, commands: tuple[syntax.Command, ...], streams: Streams, *, tested: bool) -> int:
        pipes = [Pipe() for _ in commands[1:]]
        inputs: list[Input] = [streams.stdin, *pipes]
        outputs: list[Output] = [*pipes, streams.stdout]

        async def part(number: int) -> int:
            own = replace(streams, stdin=inputs[number], stdout=outputs[number])
            try:
                return await self.copy()._command(commands[number], own, tested=tested)
            except ShellExit as end:
                return end.status
            except BrokenPipeError:
                return SIGNALLED + signal.SIGPIPE
            finally:
                if number < len(pipes):
                    pipes[number].end()
                if number:
                    pipes[number - 1].abandon()

        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(part(number)) for number in range(len(commands))]
        results = [task.result() for task in parts]
        if "pipefail" in self.options:
            return next((status for status in reversed(results) if status), 0)
        return results[-1]

    async def _command(self, command: syntax.Command, streams: Streams, *, tested: bool) -> int:
        if isinstance(command, syntax.Simple):
            return await self._simple(command, streams)
        try:
            streams = await self._redirect(command.redirects, streams)
        except OSError as wrong:
            await _say(streams, f"{self.name}: line {self.line}: {_explain(wrong)}")
            return 1
        match command:
            case syntax.Group(script=script, subshell=True):
                try:
                    return await self.copy().run(script, streams, tested=tested)
                except ShellExit as end:
                    return end.status
            case syntax.Group(script=script):
                return await self.run(script, streams, tested=tested)
            case syntax.If():
                return await self._if(command, streams, tested=tested)
            case syntax.For():
                return await self._for(command, streams, tested=tested)
            case syntax.While():
                return await self._while(command, streams, tested=tested)

    async def _if(self, command: syntax.If, streams: Streams, *, tested: bool) -> int:
        for condition, body in command.branches:
            if condition is None or await self.run(condition, streams, tested=True) == 0:
                return await self.run(body, streams, tested=tested)
        return 0

    async def _for(self, command: syntax.For, streams: Streams, *, tested: bool) -> int:
        status = 0
        words = self.parameters if command.words is None else await self._fields(command.words, streams)
        for word in words:
            self.assign(command.name, word)
            status = await self.run(command.body, streams, tested=tested)
            await asyncio.sleep(0)
        return status

    async def _while(self, command: syntax.While, streams: Streams, *, tested: bool) -> int:
        status = 0
        while (await self.run(command.condition, streams, tested=True) == 0) != command.negated:
            status = await self.run(command.body, streams, tested=tested)
            await asyncio.sleep(0)
        return status

    async def _simple(self, command: syntax.Simple, streams: Streams) -> int:
        self.line = command.line
        try:
            words = await self._fields(command.words, streams)
            values = [(name, await self._joined(word, streams)) for name, word in command.assignments]
            outer = streams
            streams = await self._redirect(command.redirects, streams)
            if not words:
                for name, value in values:
                    self.assign(name, value)
                return self.status if any(_substitutes(word) for _, word in command.assignments) else 0
            await self._trace(words, outer)
            if (own := _BUILTINS.get(words[0])) is not None:
                for name, value in values:
                    self.assign(name, value)
                return await own(self, words, streams)
            return await self._program(words, {**self.env, **dict(values)}, streams)
        except OSError as wrong:
            if isinstance(wrong, BrokenPipeError):
                raise
            await _say(streams, f"{self.name}: line {self.line}: {_explain(wrong)}")
            return 1

    async def _trace(self, words: list[str], streams: Streams) -> None:
        if "xtrace" in self.options:
            await streams.stderr.write(("+ " + " ".join(words) + "\n").encode(errors="surrogateescape"))

    async def _program(self, words: list[str], env: dict[str, str], streams: Streams) -> int:
        call = Call(words, env, self.cwd, streams, self.task)
        path = find_program(self.task, words[0], env, self.cwd)
        if path is None:
            problem = "No such file or directory" if "/" in words[0] else "command not found"
            await _say(streams, f"{self.name}: line {self.line}: {words[0]}: {problem}")
            return NOT_FOUND
        try:
            return await self.task.foreground(execute(call))
        except PermissionError:
            await _say(streams, f"{self.name}: line {self.line}: {words[0]}: Permission denied")
            return NOT_EXECUTABLE

    # Words

    async def _fields(self, words: Sequence[syntax.Word], streams: Streams) -> list[str]:
        fields: list[str] = []
        for word in words:
            for pieces in await self._split(word, streams):
                fields += self._glob(pieces)
        return fields

    def _glob(self, pieces: list[tuple[str, bool]]) -> list[str]:
        plain = "".join(text for text, _ in pieces)
        if not any(not quoted and set("*?[") & set(text) for text, quoted in pieces):
            return [plain]
        pattern = "".join(_literal(text) if quoted else text for text, quoted in pieces)
        return self.task.files.glob(pattern, self.cwd) or [plain]

    async def _split(self, word: syntax.Word, streams: Streams) -> list[list[tuple[str, bool]]]:
        """The fields of a word, each as pieces of text with whether they were quoted."""
        fields: list[list[tuple[str, bool]]] = [[]]
        for part in word:
            if isinstance(part, syntax.Variable) and part.name == "@" and part.quoted:
                for number, parameter in enumerate(self.parameters):
                    if number:
                        fields.append([])
                    fields[-1].append((parameter, True))
                continue
            text = await self._expand(part, streams)
            if part.quoted or isinstance(part, syntax.Text):
                fields[-1].append((text, part.quoted))
                continue
            pieces = text.split()
            if text[:1].isspace() and fields[-1]:
                fields.append([])
            for number, piece in enumerate(pieces):
                if number:
                    fields.append([])
                fields[-1].append((piece, False))
            if pieces and text[-1:].isspace():
                fields.append([])
        return [pieces for pieces in fields if pieces]

    async def _joined(self, word: syntax.Word, streams: Streams) -> str:
        return "".join([await self._expand(part, streams) for part in word])

    async def _expand(
        self, part: syntax.Text | syntax.Variable | syntax.Substitution, streams: Streams
    ) -> str:
        match part:
            case syntax.Text(text=text):
                return text
            case syntax.Variable():
                return await self._variable(part, streams)
            case syntax.Substitution(script=script):
                return await self._substitute(script, streams)

    async def _variable(self, part: syntax.Variable, streams: Streams) -> str:
        value = self._value(part.name)
        empty = value is None or (value == "" and part.operator.startswith(":"))
        match part.operator[-1:]:
            case "-" if empty:
                return await self._joined(part.word, streams)
            case "=" if empty:
                value = await self._joined(part.word, streams)
                self.assign(part.name, value)
            case "+":
                return "" if empty else await self._joined(part.word, streams)
            case "?" if empty:
                message = await self._joined(part.word, streams) or "parameter null or not set"
                await _say(streams, f"{self.name}: line {self.line}: {part.name}: {message}")
                raise ShellExit(NOT_FOUND if self.name == "bash" else SYNTAX)
            case "" if value is None and "nounset" in self.options:
                await _say(streams, f"{self.name}: line {self.line}: {part.name}: unbound variable")
                raise ShellExit(1)
        return value or ""

    def _value(self, name: str) -> str | None:
        match name:
            case "?":
                return str(self.status)
            case "$":
                return str(self.task.pid)
            case "!":
                return "" if self.background is None else str(self.background)
            case "#":
                return str(len(self.parameters))
            case "@" | "*":
                return " ".join(self.parameters)
            case "-":
                return "".join(sorted(option[0] for option in self.options))
            case "0":
                return self.name
        if name.isdecimal():
            return self.parameters[int(name) - 1] if int(name) <= len(self.parameters) else None
        return self.variables.get(name)

    async def _substitute(self, script: syntax.Script, streams: Streams) -> str:
        sink = Memory()
        try:
            self.status = await self.copy().run(script, replace(streams, stdout=sink))
        except ShellExit as end:
            self.status = end.status
        return sink.data.decode(errors="surrogateescape").rstrip("\n").replace("\0", "")

    # Redirects

    async def _redirect(self, redirects: Sequence[syntax.Redirect], streams: Streams) -> Streams:
        for redirect in redirects:
            target = await self._joined(redirect.target, streams)
            streams = self._redirected(redirect, target, streams)
        return streams

    def _redirected(self, redirect: syntax.Redirect, target: str, streams: Streams) -> Streams:
        fields = {0: "stdin", 1: "stdout", 2: "stderr"}
        name = fields.get(redirect.descriptor)
        if name is None or (redirect.operator == ">&" and target not in {"1", "2"}):
            raise OSError(
                errno.EBADF, os.strerror(errno.EBADF), f"{redirect.descriptor}{redirect.operator}{target}"
            )
        match redirect.operator:
            case "<":
                return replace(streams, stdin=open_input(self.task, target, self.cwd))
            case "<<":
                return replace(streams, stdin=Memory(target.encode(errors="surrogateescape")))
            case ">&":
                return replace(streams, **{name: getattr(streams, fields[int(target)])})
        self.task.files.write(target, b"", self.cwd, append=redirect.operator == ">>")
        return replace(streams, **{name: _FileOutput(self.task, target, self.cwd)})

    # Built-in commands: those that change the shell itself

    async def _cd(self, words: list[str], streams: Streams) -> int:
        target = words[1] if len(words) > 1 else self.variables.get("HOME", "/")
        path = self.task.files.resolve(target, self.cwd)
        if not isinstance(self.task.files.find(path), Folder):
            raise error(errno.ENOTDIR, target)
        self.cwd = path
        self.assign("PWD", path)
        return 0

    async def _export(self, words: list[str], streams: Streams) -> int:
        for word in words[1:]:
            name, equals, value = word.partition("=")
            if not name.isidentifier():
                await _say(
                    streams, f"{self.name}: line {self.line}: export: `{word}': not a valid identifier"
                )
                return 1
            if equals:
                self.assign(name, value)
            self.exported.add(name)
        return 0

    async def _unset(self, words: list[str], streams: Streams) -> int:
        for name in words[1:]:
            self.variables.pop(name, None)
            self.exported.discard(name)
        return 0

    async def _set(self, words: list[str], streams: Streams) -> int:
        rest = set_options(self.options, words[1:])
        if rest is None:
            await _say(streams, f"{self.name}: line {self.line}: set: {' '.join(words[1:])}: not known here")
            return SYNTAX
        if rest or "--" in words:
            self.parameters = rest
        return 0

    async def _exit(self, words: list[str], streams: Streams) -> int:
        code = words[1] if len(words) > 1 else str(self.status)
        if not code.lstrip("-").isdecimal():
            await _say(streams, f"{self.name}: line {self.line}: exit: {code}: numeric argument required")
            raise ShellExit(SYNTAX)
        raise ShellExit(int(code) % 256)

    async def _eval(self, words: list[str], streams: Streams) -> int:
        return await self.run_text(" ".join(words[1:]), streams)

    async def _source(self, words: list[str], streams: Streams) -> int:
        text = self.task.files.read(words[1], self.cwd).decode(errors="surrogateescape")
        return await self.run_text(text, streams)

    async def _exec(self, words: list[str], streams: Streams) -> int:
        raise ShellExit(await self._program(words[1:], self.env, streams))

    async def _shift(self, words: list[str], streams: Streams) -> int:
        self.parameters = self.parameters[1:]
        return 0

    async def _read(self, words: list[str], streams: Streams) -> int:
        line = bytearray()
        while (char := await streams.stdin.read(1)) not in {b"", b"\n"}:
            line += char
        names = [word for word in words[1:] if word != "-r"] or ["REPLY"]
        values = line.decode(errors="surrogateescape").split(None, len(names) - 1)
        for number, name in enumerate(names):
            self.assign(name, values[number].rstrip() if number < len(values) else "")
        return int(char == b"")

    async def _trap(self, words: list[str], streams: Streams) -> int:
        action, *names = words[1:] or [""]
        for name in names:
            number = signal_number(name)
            if number is None:
                await _say(
                    streams, f"{self.name}: line {self.line}: trap: {name}: invalid signal specification"
                )
                return 1
            if action == "-":
                self.task.traps.pop(number, None)
            else:
                self.task.traps[number] = action
        return 0

    async def _wait(self, words: list[str], streams: Streams) -> int:
        return await self.task.foreground(self.task.wait_for([int(word) for word in words[1:]]))

    async def _kill(self, words: list[str], streams: Streams) -> int:
        number: int | None = signal.SIGTERM
        names = words[1:]
        if names and names[0].startswith("-"):
            number = signal_number(names.pop(0)[1:] if names[0] != "-s" else names.pop(1))
            names = [name for name in names if name != "-s"]
        if number is None or not names or not all(name.isdecimal() for name in names):
            await _say(streams, f"{self.name}: line {self.line}: kill: usage: kill [-SIGNAL] PID…")
            return SYNTAX
        missing = [name for name in names if not self.task.kill(int(name), number)]
        for name in missing:
            await _say(streams, f"{self.name}: line {self.line}: kill: ({name}) - No such process")
        await asyncio.sleep(0)
        return int(bool(missing))

    async def _command_v(self, words: list[str], streams: Streams) -> int:
        if words[1:2] not in (["-v"], ["-V"]):
            return await self._program(words[1:], self.env, streams)
        for name in words[2:]:
            path = name if name in _BUILTINS else find_program(self.task, name, self.env, self.cwd)
            if path is None:
                return 1
            await streams.stdout.write(f"{path}\n".encode(errors="surrogateescape"))
        return 0


_BUILTINS: dict[str, Callable[[Shell, list[str], Streams], Awaitable[int]]] = {
    ".": Shell._source,
    "cd": Shell._cd,
    "command": Shell._command_v,
    "eval": Shell._eval,
    "exec": Shell._exec,
    "exit": Shell._exit,
    "export": Shell._export,
    "kill": Shell._kill,
    "read": Shell._read,
    "set": Shell._set,
    "shift": Shell._shift,
    "source": Shell._source,
    "trap": Shell._trap,
    "unset": Shell._unset,
    "wait": Shell._wait,
}

_OPTIONS = {"e": "errexit", "u": "nounset", "x": "xtrace"}
_LONG_OPTIONS = {*_OPTIONS.values(), "pipefail"}


def set_options(options: set[str], words: Sequence[str]) -> list[str] | None:
    """Apply ``-e``, ``+x``, ``-o pipefail`` …; the words that are left, or ``None`` for an unknown option."""
    rest = list(words)
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


def signal_number(name: str) -> int | None:
    """The number of a signal given by number or name, with or without SIG; 0 for EXIT."""
    if name.isdecimal():
        return int(name)
    if name == "EXIT":
        return 0
    found = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
    return int(found) if isinstance(found, signal.Signals) else None


def _substitutes(word: syntax.Word) -> bool:
    return any(isinstance(part, syntax.Substitution) for part in word)


def _literal(text: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in text)


def _explain(wrong: OSError) -> str:
    return f"{wrong.filename}: {wrong.strerror}"


async def _say(streams: Streams, line: str) -> None:
    await streams.stderr.write(f"{line}\n".encode(errors="surrogateescape"))
