"""Whether a job goes on, and how what it runs is stopped.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-cancellation: SIGINT, after 7.5 seconds
SIGTERM, after 2.5 more SIGKILL; five minutes for all that still wants to run.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Literal, Protocol

from cloche.errors import GuestTimeout
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloche.errors import GuestError

Why = Literal["ended", "timeout", "cancelled"]


@record
class Timing:
    """How long, in seconds, what is being stopped may take, and how often the guest is asked for its health.

    ``cancel`` is for all that still wants to run in a cancelled run, ``cleanup`` for each clean-up script.
    """

    interrupt: float = 7.5
    terminate: float = 2.5
    kill: float = 10.0
    cancel: float = 300.0
    cleanup: float = 300.0
    health: float = 10.0


class JobControl:
    """Tells one job to stop. Its steps look at it; whoever decides calls ``cancel`` or ``lose``.

    ``cancelled``: only what asks for it still runs. ``expired``: nor that. ``lost``: the guest is gone.
    ``reason`` says why, for the user, where that is not plain.
    """

    def __init__(self, timing: Timing) -> None:
        self.timing = timing
        self.cancelled = False
        self.expired = False
        self.lost: GuestError | None = None
        self.reason: str | None = None
        self._loop = asyncio.get_running_loop()
        self._change: asyncio.Future[None] = self._loop.create_future()
        self._timers: list[asyncio.TimerHandle] = []

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the job; again changes nothing."""
        if not self.cancelled:
            self.cancelled, self.reason = True, reason
            self._timers.append(self._loop.call_later(self.timing.cancel, self.expire))
            self._wake()

    def cancel_after(self, seconds: float, reason: str) -> None:
        """Cancel the job unless it is closed before."""
        self._timers.append(self._loop.call_later(seconds, self.cancel, reason))

    def lose(self, error: GuestError) -> None:
        """Tell that the guest is gone."""
        self.lost = self.lost or error
        self._wake()

    def close(self) -> None:
        """End the timers."""
        for timer in self._timers:
            timer.cancel()

    def expire(self) -> None:
        """Cancel all of the job, what asks to run nevertheless included."""
        self.cancelled = self.expired = True
        self._wake()

    def _wake(self) -> None:
        change, self._change = self._change, self._loop.create_future()
        change.set_result(None)

    async def watch(
        self,
        work: asyncio.Task[Any],
        limit: float | None,
        still_wanted: Callable[[], Awaitable[bool]],
        *,
        excused: bool = False,
        to_its_end: bool = False,
    ) -> Why:
        """Wait until ``work`` ends or has to be stopped, and say which.

        ``limit`` is in seconds. When the job is cancelled meanwhile, ``still_wanted`` decides whether the work
        may go on; ``excused`` says that this has been decided already. With ``to_its_end`` nothing but ``limit`` ends
        it. Raises the GuestError that the guest was lost with.
        """
        deadline = None if limit is None else self._loop.time() + limit
        while True:
            if self.lost:
                raise self.lost
            if not to_its_end and (
                self.expired or (self.cancelled and not excused and not await still_wanted())
            ):
                return "cancelled"
            excused = self.cancelled
            change = self._change
            left = None if deadline is None else max(deadline - self._loop.time(), 0.0)
            done, _ = await asyncio.wait({work, change}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return "ended"
            if not done:
                return "timeout"


class Signalled(Protocol):
    """A program that can be sent signals."""

    async def signal(self, number: int) -> None:
        """Send a signal to the program and all its descendants."""


async def stop(process: Signalled, ended: asyncio.Task[Any], timing: Timing) -> None:
    """End a program as GitHub does, more and more firmly. GuestTimeout when even SIGKILL does not help."""
    ladder = (
        (signal.SIGINT, timing.interrupt),
        (signal.SIGTERM, timing.terminate),
        (signal.SIGKILL, timing.kill),
    )
    for number, patience in ladder:
        await process.signal(number)
        done, _ = await asyncio.wait({ended}, timeout=patience)
        if done:
            return
    raise GuestTimeout(f"the guest did not end a step within {timing.kill:g} s of SIGKILL")
