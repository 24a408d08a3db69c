"""What is typed goes to a program, what it writes is shown, until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Protocol

from cloche.errors import ClocheError, GuestError, GuestTimeout
from cloche.tasks import finish
from cloche.terminal.streams import Sink, Source

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cloche.terminal.console import Console
    from cloche.vm.guest import ExitStatus, TtySize

_HANG_UP = 2.0  # seconds for a program whose terminal is gone, before it is killed


class Joined(Protocol):
    """A program as far as a terminal is concerned: cloche.vm.guest.Process, or one that another process leads to."""

    def output(self) -> AsyncIterator[bytes]:
        """What it writes, until it has ended."""

    async def wait(self) -> ExitStatus:
        """How it ended. GuestError when it cannot be told."""

    async def write(self, data: bytes) -> None:
        """Have it read this."""

    async def close_stdin(self) -> None:
        """Have it read the end."""

    async def signal(self, number: int) -> None:
        """Send it a signal."""

    async def resize(self, size: TtySize) -> None:
        """Tell it the terminal's size."""


async def join(process: Joined, stdin: int, stdout: int) -> ExitStatus:
    """Pass bytes between two descriptors and a program until the program ends; how it ended.

    Who is cancelled meanwhile, or has nobody left to show anything to, hangs up: the program is ended, gently at
    first. GuestError when the guest is gone.
    """
    typing = asyncio.create_task(_type(process, Source(stdin)))
    try:
        with Sink(stdout) as sink:
            await _show(process, sink)
        return await process.wait()
    except BaseException:
        with contextlib.suppress(GuestError):  # what went wrong first counts
            await finish(_hang_up(process))
        raise
    finally:
        typing.cancel()
        await asyncio.gather(typing, return_exceptions=True)


async def join_console(process: Joined, console: Console) -> ExitStatus:
    """Join the user's terminal: in raw mode, its size passed on. As ``join``."""
    telling: set[asyncio.Task[None]] = set()

    def tell(size: TtySize) -> None:
        task = asyncio.create_task(_resize(process, size))
        telling.add(task)
        task.add_done_callback(telling.discard)

    with console.raw(), console.resized(tell):
        return await join(process, console.stdin, console.stdout)


async def _resize(process: Joined, size: TtySize) -> None:
    with contextlib.suppress(ClocheError):  # told where its output is read
        await process.resize(size)


async def _type(process: Joined, source: Source) -> None:
    with contextlib.suppress(ClocheError):  # as above
        while data := await source.read():
            await process.write(data)
        await process.close_stdin()


async def _show(process: Joined, sink: Sink) -> None:
    async for chunk in process.output():
        try:
            await sink.write(chunk)
        except OSError:  # nobody reads any more: as when a terminal is closed
            await _hang_up(process)
            return


async def _hang_up(process: Joined) -> None:
    """End a program whose terminal is gone, with all that it started. GuestError when that cannot be done."""
    for number in (signal.SIGHUP, signal.SIGKILL):
        await process.signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HANG_UP):
                async for _ in process.output():
                    pass
                await process.wait()
                return
    raise GuestTimeout(f"a shell did not end within {_HANG_UP:g} s of SIGKILL")
