"""Processes of the fake: a tree of asyncio tasks with pids, signals and traps."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from typing import TYPE_CHECKING

from cloche.errors import GuestError
from cloche.vm.fake.launch import NOT_EXECUTABLE, NOT_FOUND, SIGNALLED, execute
from cloche.vm.fake.streams import Call, Empty, Pipe, Streams
from cloche.vm.guest import MAX_COLLECTED, CollectedFile, ExecSpec, ExitStatus, TtySize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from cloche.vm.fake.files import FileSystem
    from cloche.vm.fake.provider import FakeRoot

_HARMLESS = {0, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}


class FakeTask:
    """One process of a job root: a task with a pid, which signals end or, where trapped, interrupt."""

    def __init__(
        self, root: FakeRoot, pid: int, work: Callable[[FakeTask], Coroutine[None, None, int]]
    ) -> None:
        self.root = root
        self.pid = pid
        self.children: list[FakeTask] = []
        self.traps: dict[int, str] = {}
        self.pending: list[int] = []
        self.killed: int | None = None
        self.terminal: TtySize | None = None
        self._foreground: set[asyncio.Task[int]] = set()
        self.running = asyncio.create_task(self._run(work))

    @property
    def files(self) -> FileSystem:
        """The job's file system."""
        return self.root.files

    async def _run(self, work: Callable[[FakeTask], Coroutine[None, None, int]]) -> int:
        try:
            return await work(self)
        except BrokenPipeError:
            return SIGNALLED + signal.SIGPIPE
        except asyncio.CancelledError:
            if self.killed is None:
                raise
            return SIGNALLED + self.killed

    def start_child(self, work: Callable[[FakeTask], Coroutine[None, None, int]]) -> FakeTask:
        """Start a background process."""
        child = self.root.start(work)
        child.terminal = self.terminal
        child.traps = {number: action for number, action in self.traps.items() if number and not action}
        self.children.append(child)
        return child

    async def foreground(self, program: Coroutine[None, None, int]) -> int:
        """Run a program that a trapped signal interrupts without ending this process."""
        task = asyncio.create_task(program)
        self._foreground.add(task)
        try:
            await asyncio.wait({task})
        finally:
            self._foreground.discard(task)
            task.cancel()  # where this process was killed; a finished task does not mind
        if task.cancelled():
            return SIGNALLED + (self.pending[-1] if self.pending else signal.SIGTERM)
        return task.result()

    async def wait_for(self, pids: list[int]) -> int:
        """Wait for these children, or all of them; the status of the last one named, else 0."""
        children = [child for child in self.children if not pids or child.pid in pids]
        if pids and not children:
            return NOT_FOUND
        for child in children:
            await asyncio.wait({child.running})
        return children[-1].running.result() if pids else 0

    def kill(self, pid: int, number: int) -> bool:
        """Send a signal to one process of this root; false if there is none."""
        task = self.root.tasks.get(pid)
        if task is None or task.running.done():
            return False
        task.deliver(number)
        return True

    def signal_tree(self, number: int) -> None:
        """Send a signal to this process and all its descendants."""
        for child in self.children:
            child.signal_tree(number)
        self.deliver(number)

    def deliver(self, number: int) -> None:
        """Take a signal as a process does: die of it, ignore it, or have its trap run."""
        action = None if number in _UNCATCHABLE else self.traps.get(number)
        if number in _HARMLESS and action is None:
            return
        if action is None:
            self.killed = number
            self.running.cancel()
        elif action:
            self.pending.append(number)
            for task in self._foreground:
                task.cancel()


class FakeProcess:
    """A program running in a fake job root; see ``cloche.vm.guest.Process``."""

    def __init__(self, root: FakeRoot, spec: ExecSpec) -> None:
        self._root = root
        self._spec = spec
        self._output = Pipe()
        self._input = Pipe() if spec.stdin or spec.tty else None
        self._error: str | None = None
        self._result: ExitStatus | None = None
        self._oom_kills = root.oom_kills
        self._task = root.start(self._main)
        self._task.terminal = spec.tty
        self._ended = asyncio.create_task(self._supervise())

    async def _main(self, task: FakeTask) -> int:
        spec = self._spec
        streams = Streams(self._input or Empty(), self._output, self._output)
        call = Call(list(spec.argv), dict(spec.env), spec.cwd, streams, task)
        if (handler := self._root.guest.handler) is not None:
            self._root.write_files(spec.files)
            result = await handler(spec, call)
            if isinstance(result, ExitStatus):
                self._result = result
                return result.code
            if result is not None:
                return result
        try:
            self._root.write_files(spec.files)
            call = dataclasses.replace(call, cwd=self._root.files.resolve(spec.cwd))
            self._root.files.find(call.cwd)
            return await execute(call)
        except BrokenPipeError:
            raise
        except OSError as wrong:
            self._error = f"{wrong.filename}: {wrong.strerror}"
            return NOT_FOUND if isinstance(wrong, FileNotFoundError) else NOT_EXECUTABLE

    async def _supervise(self) -> ExitStatus | BaseException:
        await asyncio.wait({self._task.running})
        self._output.end()
        if self._root.guest.lost is not None:
            return self._root.guest.lost
        ended = self._task.running
        failure = None if ended.cancelled() else ended.exception()
        if failure is not None:
            if isinstance(failure, GuestError):
                self._root.guest.lose(failure)
            return failure
        status = self._result or ExitStatus(
            code=SIGNALLED + (self._task.killed or signal.SIGKILL) if ended.cancelled() else ended.result(),
            signal=self._task.killed,
            error=self._error,
            oom_kills=self._root.oom_kills - self._oom_kills,
        )
        return dataclasses.replace(
            status,
            boot_id=status.boot_id or self._root.guest.info.boot_id,
            collected=status.collected or self._collect(),
        )

    def _collect(self) -> dict[str, CollectedFile]:
        found = {}
        for path in self._spec.collect:
            try:
                content = self._root.files.read(path, self._spec.cwd)
            except OSError:
                continue
            found[path] = CollectedFile(content[:MAX_COLLECTED], truncated=len(content) > MAX_COLLECTED)
        return found

    async def output(self) -> AsyncIterator[bytes]:
        """Give standard output and error as they come."""
        while chunk := await self._output.read():
            yield chunk
        if self._root.guest.lost is not None and not self._ended.done():
            raise self._root.guest.lost

    async def wait(self) -> ExitStatus:
        """Wait for the end; GuestLost if the guest died before."""
        await asyncio.wait({self._ended})
        result = self._ended.result()
        if isinstance(result, BaseException):
            raise result
        return result

    async def write(self, data: bytes) -> None:
        """Write to standard input; what an ended program does not read is dropped."""
        if self._input is not None and not self._ended.done():
            await self._input.write(data)

    async def close_stdin(self) -> None:
        """End standard input."""
        if self._input is not None:
            self._input.end()

    async def signal(self, number: int) -> None:
        """Signal the program and its descendants."""
        if not self._root.guest.silent:
            self._task.signal_tree(number)

    async def resize(self, size: TtySize) -> None:
        """Set the terminal's size; the program gets SIGWINCH."""
        if self._spec.tty is not None:
            self._task.terminal = size
            self._task.signal_tree(signal.SIGWINCH)
