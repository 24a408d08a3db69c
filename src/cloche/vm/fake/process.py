"""Processes of the fake: a tree of asyncio tasks with pids, signals and traps."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from cloche.errors import GuestError
from cloche.vm.fake.launch import NOT_EXECUTABLE, NOT_FOUND, SIGNALLED, execute
from cloche.vm.fake.streams import Call, Empty, Pipe, Streams
from cloche.vm.guest import MAX_COLLECTED, CollectedFile, ExecSpec, ExitStatus, TtySize

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cloche.vm.fake.files import FileSystem
    from cloche.vm.fake.provider import FakeRoot

_HARMLESS = {0, signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
_CTRL_C, _CTRL_D = b"\x03", b"\x04"  # what a terminal makes a signal and an end of
_UNCATCHABLE = {signal.SIGKILL, signal.SIGSTOP}


Work = Callable[["FakeTask"], Coroutine[None, None, int]]
"""What a process does."""


class FakeTask:
    """One process of a job root: a task with a pid, that signals end or, where trapped, leave a note with."""

    def __init__(self, root: FakeRoot, pid: int, work: Work, terminal: TtySize | None = None) -> None:
        self.root = root
        self.pid = pid
        self.terminal = terminal
        self.children: list[FakeTask] = []
        self.traps: dict[int, str] = {}
        self.pending: list[int] = []
        self.killed: int | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self.running = asyncio.create_task(self._run(work))

    @property
    def files(self) -> FileSystem:
        """The job's file system."""
        return self.root.files

    @property
    def status(self) -> int:
        """How it ended, as a shell says it; raises what it raised."""
        if self.running.cancelled():  # before it had begun
            return SIGNALLED + (self.killed or signal.SIGKILL)
        return self.running.result()

    async def _run(self, work: Work) -> int:
        try:
            return await work(self)
        except BrokenPipeError:
            return SIGNALLED + signal.SIGPIPE
        except asyncio.CancelledError:
            if self.killed is None:
                raise
            return SIGNALLED + self.killed

    def start_child(self, work: Work) -> FakeTask:
        """Start a process of our own; it ignores the signals that we ignore."""
        child = self.root.start(work, self.terminal)
        child.traps = self.ignored
        self.children.append(child)
        return child

    @property
    def ignored(self) -> dict[int, str]:
        """The traps that a new program keeps: those that ignore."""
        return {number: action for number, action in self.traps.items() if number and not action}

    async def run_child(self, work: Work) -> int:
        """Start a process and wait for it; its status."""
        child = self.start_child(work)
        await asyncio.wait({child.running})
        self.children.remove(child)
        self.children += child.children
        return child.status

    async def wait_for(self, pids: list[int]) -> int:
        """Wait for these children, or all of them; the status of the last one named, else 0.

        A trapped signal ends the waiting, not the children.
        """
        children = [child for child in self.children if not pids or child.pid in pids]
        if pids and not children:
            return NOT_FOUND
        for child in children:
            interruption = asyncio.get_running_loop().create_future()
            self._waiting.add(interruption)
            await asyncio.wait({child.running, interruption}, return_when=asyncio.FIRST_COMPLETED)
            self._waiting.discard(interruption)
            if interruption.done():
                return SIGNALLED + self.pending[-1]
        return children[-1].status if pids else 0

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
        """Take a signal as a process does: die of it, ignore it, or keep it for its trap."""
        action = None if number in _UNCATCHABLE else self.traps.get(number)
        if self.running.done() or (number in _HARMLESS and action is None):
            return
        if action is None:
            self.killed = number
            self.running.cancel()
        elif action:
            self.pending.append(number)
            for interruption in self._waiting:
                if not interruption.done():
                    interruption.set_result(None)


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
        self._task = root.start(self._main, spec.tty)
        self.ended = asyncio.create_task(self._supervise())

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
        if self._root.guest.loss is not None:
            return self._root.guest.loss
        ended = self._task.running
        failure = None if ended.cancelled() else ended.exception()
        if failure is not None:
            if isinstance(failure, GuestError):
                self._root.guest.lose(failure)
            return failure
        status = self._result or ExitStatus(
            code=self._task.status,
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
        """Give standard output and error as they come; GuestLost if the guest dies."""
        while chunk := await self._output.read():
            yield chunk
        await asyncio.wait({self.ended})
        if isinstance(lost := self.ended.result(), GuestError):
            raise lost

    async def wait(self) -> ExitStatus:
        """Wait for the end; GuestLost if the guest died before."""
        await asyncio.wait({self.ended})
        result = self.ended.result()
        if isinstance(result, BaseException):
            raise result
        return result

    async def write(self, data: bytes) -> None:
        """Write to standard input; what an ended program does not read is dropped."""
        if self._input is None or self.ended.done():
            return
        if self._spec.tty is None:
            await self._input.write(data)
            return
        typed, end, _ = data.partition(_CTRL_D)
        await self._input.write(typed)
        if _CTRL_C in data:
            self._task.signal_tree(signal.SIGINT)
        if end:
            self._input.end()

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
