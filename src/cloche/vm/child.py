"""A child process that never outlives Cloche: watched by its pidfd, killed by the kernel when we die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import deque
from typing import TYPE_CHECKING, Self

from cloche.vm.starting import start_watched
from cloche.vm.words import plain

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

_SAID = 16 * 1024
_READ = 4096
_MAX_PIPE = 1024 * 1024
"""Bytes that a pipe holds at most (pipe(7)); 64 KiB unless somebody changed it."""


class Child:
    """A started program. ``said`` is the last 16 KiB of its standard error."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self._ended = asyncio.Event()
        self._tail = Tail(_stderr(process))
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)

    @classmethod
    def start(cls, argv: Sequence[str], pass_fds: Sequence[int] = ()) -> Self:
        """Start ``argv`` with an empty input and no output. ProviderError if that cannot be done here."""
        return cls(start_watched(argv, pass_fds))

    @property
    def pid(self) -> int:
        """The process id, of setpriv, of sh and then, unchanged, of the program."""
        return self._process.pid

    @property
    def said(self) -> str:
        """The end of what it wrote to standard error."""
        return self._tail.text

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._ended.is_set()

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        self._tail.drain()
        self._ended.set()

    async def wait(self) -> int:
        """Its return code, negative for a signal, once it has ended."""
        await self._ended.wait()
        return self._process.returncode

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still lives."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def kill(self) -> None:
        """End it now and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self._ended.wait()
        self._tail.close()


class Tail:
    """Reads a descriptor as it fills and keeps the end of it. Owns the descriptor."""

    def __init__(self, descriptor: int, limit: int = _SAID) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._limit = limit
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    @property
    def text(self) -> str:
        """The end of what was read, at most the limit, and nothing that a terminal would take as an order."""
        text = b"".join(self._parts)[-self._limit :].decode(errors="replace")
        return plain(text.replace("\r\n", "\n"), self._limit)

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, _READ)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        self._parts.append(data)
        self._size += len(data)
        while self._size - len(self._parts[0]) >= self._limit:
            self._size -= len(self._parts.popleft())
        return True

    def drain(self) -> None:
        """Read what is there now, though somebody else may go on writing."""
        for _ in range(_MAX_PIPE // _READ):
            if self._descriptor < 0 or not self._read():
                return

    def close(self) -> None:
        """Stop reading."""
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def _stderr(process: subprocess.Popen[bytes]) -> int:
    assert process.stderr is not None, "started with a pipe"  # noqa: S101 - see start()
    descriptor = os.dup(process.stderr.fileno())
    process.stderr.close()
    return descriptor
