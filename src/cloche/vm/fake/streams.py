"""Bytes between the tasks of the fake: pipes, files and memory as a program's input and output."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Protocol

from cloche.records import record
from cloche.vm.fake.files import Device, File, FileSystem, Folder, error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cloche.vm.fake.process import FakeTask

WINDOW = 64 * 1024
"""Bytes that may wait in a pipe before its writer waits, as in Linux."""
MAX_MEMORY = 4 * 1024 * 1024
"""Bytes that ``$(…)`` takes before the shell gives up."""


class Input(Protocol):
    """What a program reads from."""

    async def read(self, limit: int = WINDOW) -> bytes:
        """Up to ``limit`` bytes; empty at the end."""


class Output(Protocol):
    """What a program writes to."""

    async def write(self, data: bytes) -> None:
        """Write all of ``data``."""


class Pipe:
    """Bytes from one task to another. Writing waits while the window is full, reading while it is empty."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._ended = False
        self._broken = False
        self._changed = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """Write all of ``data``; BrokenPipeError once nobody will read it."""
        view = memoryview(data)
        while view:
            await self._until(lambda: self._ended or self._broken or len(self._waiting) < WINDOW)
            if self._ended or self._broken:
                raise BrokenPipeError
            room = WINDOW - len(self._waiting)
            self._waiting += view[:room]
            view = view[room:]
            self._wake()

    async def read(self, limit: int = WINDOW) -> bytes:
        """Up to ``limit`` bytes as soon as there are some; empty at the end."""
        await self._until(lambda: self._ended or bool(self._waiting))
        data = bytes(self._waiting[:limit])
        del self._waiting[:limit]
        self._wake()
        return data

    def end(self) -> None:
        """No more is written; what waits can still be read."""
        self._ended = True
        self._wake()

    def abandon(self) -> None:
        """No more is read: the writer's next write fails."""
        self._broken = True
        self._waiting.clear()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            await self._changed.wait()


class Empty:
    """An input with nothing in it."""

    async def read(self, limit: int = WINDOW) -> bytes:  # noqa: ARG002 - the shape of an input
        """Nothing, at once."""
        return b""


class Memory:
    """Bytes in memory, to read or to add to, at most MAX_MEMORY of them."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self._at = 0

    async def read(self, limit: int = WINDOW) -> bytes:
        """Take the next bytes."""
        chunk = self.data[self._at : self._at + limit]
        self._at += len(chunk)
        return chunk

    async def write(self, data: bytes) -> None:
        """Keep the bytes."""
        if len(self.data) + len(data) > MAX_MEMORY:
            raise error(errno.ENOMEM, "$(…)")
        self.data += data


class Zeros:
    """What ``/dev/zero`` holds."""

    async def read(self, limit: int = WINDOW) -> bytes:
        """Give zeros without end, and others their turn."""
        await asyncio.sleep(0)
        return bytes(limit)


class FileOutput:
    """A file opened for appending."""

    def __init__(self, files: FileSystem, path: str, cwd: str) -> None:
        self._files, self._path, self._cwd = files, path, cwd

    async def write(self, data: bytes) -> None:
        """Add to the file."""
        self._files.write(self._path, data, self._cwd, append=True)


def open_input(files: FileSystem, path: str, cwd: str) -> Input:
    """Open the file or device at ``path`` for reading."""
    match files.find(path, cwd):
        case Device(name="zero"):
            return Zeros()
        case File(content=content):
            return Memory(bytes(content))
        case Folder():
            raise error(errno.EISDIR, path)
        case _:
            return Empty()


@record
class Streams:
    """A program's standard input, output and error."""

    stdin: Input
    stdout: Output
    stderr: Output


@record
class Call:
    """One program about to run: what a kernel would hand to it."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    streams: Streams
    task: FakeTask

    async def print(self, text: str) -> None:
        """Write text to standard output."""
        await self.streams.stdout.write(encode(text))

    async def complain(self, text: str) -> int:
        """Write a line to standard error; 1, to return with."""
        await self.streams.stderr.write(encode(f"{self.argv[0]}: {text}\n"))
        return 1

    def open(self, path: str) -> Input:
        """Open a file for reading."""
        return open_input(self.task.files, path, self.cwd)


def encode(text: str) -> bytes:
    """Text as the bytes it was read from."""
    return text.encode(errors="surrogateescape")


def decode(data: bytes) -> str:
    """Bytes as text, whatever they are."""
    return data.decode(errors="surrogateescape")
