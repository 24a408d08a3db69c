"""Descriptors read and written without holding up anything else: terminals, pipes, sockets, files."""

from __future__ import annotations

import asyncio
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

CHUNK = 16 * 1024
_REOPENED = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


async def _ready(descriptor: int, *, writing: bool = False) -> None:
    """Wait until there is something to read, or room to write. A file is always ready."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    try:
        add(descriptor, wake)
    except PermissionError:  # epoll(7): a file, or /dev/null
        await asyncio.sleep(0)
        return
    try:
        await ready
    finally:
        remove(descriptor)


class Source:
    """Bytes that arrive at a descriptor, which stays its owner's."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def read(self) -> bytes:
        """Wait for bytes; none at the end, and when whoever wrote is gone."""
        while True:
            await _ready(self._descriptor)
            try:
                return os.read(self._descriptor, CHUNK)
            except BlockingIOError:
                continue
            except OSError:  # a terminal that hung up
                return b""


class Sink:
    """Where bytes go. A context manager: leaving it gives back what it opened; the descriptor stays its owner's.

    A terminal or a pipe is opened once more: whether writing may wait is a property of the open file, which is
    shared with the user's shell.
    """

    def __init__(self, descriptor: int) -> None:
        self._given = self._descriptor = descriptor

    def __enter__(self) -> Self:
        kind = os.fstat(self._given).st_mode
        if stat.S_ISSOCK(kind):
            os.set_blocking(self._given, False)
        elif stat.S_ISFIFO(kind) or os.isatty(self._given):
            try:
                self._descriptor = os.open(f"/proc/self/fd/{self._given}", os.O_WRONLY | _REOPENED)
            except OSError:  # another user's terminal, as after su(1)
                self._descriptor = self._given
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor != self._given:
            os.close(self._descriptor)
            self._descriptor = self._given

    async def write(self, data: bytes) -> None:
        """Write all, waiting while there is no room. OSError when nobody reads any more."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view[:CHUNK]) :]
            except BlockingIOError:
                await _ready(self._descriptor, writing=True)
