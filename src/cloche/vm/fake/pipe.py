"""A bounded stream of bytes between two tasks: a fake program's output, its input, a shell's pipeline."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW = 64 * 1024
"""Bytes that may wait in a stream before its writer waits, as in a Linux pipe."""


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
