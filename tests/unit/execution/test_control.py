"""Stopping: who may go on, and who is ended how."""

from __future__ import annotations

import asyncio
import signal

import pytest

from cloche.errors import GuestLost, GuestTimeout
from cloche.execution.control import JobControl, Timing, stop

QUICK = Timing(interrupt=0.01, terminate=0.01, kill=0.01, cancel=0.01)


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


async def forever() -> None:
    await asyncio.Event().wait()


class Stubborn:
    """A process that ends at the ``deadly`` signal."""

    def __init__(self, deadly: int) -> None:
        self.deadly = deadly
        self.signals: list[int] = []
        self.ended = asyncio.create_task(forever())

    async def signal(self, number: int) -> None:
        self.signals.append(number)
        if number == self.deadly:
            self.ended.cancel()


async def test_work_that_ends_has_ended() -> None:
    work = asyncio.create_task(asyncio.sleep(0))

    assert await JobControl(Timing()).watch(work, None, no) == "ended"


async def test_work_beyond_its_time() -> None:
    work = asyncio.create_task(forever())

    assert await JobControl(Timing()).watch(work, 0.001, no) == "timeout"
    work.cancel()


async def test_cancelled_work_that_is_not_wanted() -> None:
    control = JobControl(Timing())
    work = asyncio.create_task(forever())
    asyncio.get_running_loop().call_soon(control.cancel)

    assert await control.watch(work, None, no) == "cancelled"
    control.close()
    work.cancel()


async def test_cancelled_work_that_is_wanted_until_the_time_for_that_is_up() -> None:
    control = JobControl(QUICK)
    work = asyncio.create_task(forever())
    control.cancel()

    assert await control.watch(work, None, yes) == "cancelled"
    assert control.expired
    control.close()
    work.cancel()


async def test_the_question_is_asked_once() -> None:
    control = JobControl(QUICK)
    asked = 0

    async def count() -> bool:
        nonlocal asked
        asked += 1
        return True

    control.cancel()
    work = asyncio.create_task(forever())
    await control.watch(work, None, count)
    work.cancel()
    control.close()

    assert asked == 1


async def test_a_lost_guest_is_raised() -> None:
    control = JobControl(Timing())
    work = asyncio.create_task(forever())
    asyncio.get_running_loop().call_soon(control.lose, GuestLost("gone"))

    with pytest.raises(GuestLost, match="gone"):
        await control.watch(work, None, yes)
    work.cancel()


async def test_the_first_reason_stays() -> None:
    control = JobControl(Timing())
    control.cancel("time is up")
    control.cancel("again")

    assert control.reason == "time is up"
    control.close()


async def test_a_closed_control_cancels_nothing_any_more() -> None:
    control = JobControl(Timing())
    control.cancel_after(0.001, "late")
    control.close()
    await asyncio.sleep(0.01)

    assert not control.cancelled


@pytest.mark.parametrize(
    ("deadly", "sent"),
    [
        (signal.SIGINT, [signal.SIGINT]),
        (signal.SIGTERM, [signal.SIGINT, signal.SIGTERM]),
        (signal.SIGKILL, [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]),
    ],
)
async def test_signals_come_more_and_more_firmly(deadly: int, sent: list[int]) -> None:
    process = Stubborn(deadly)

    await stop(process, process.ended, QUICK)

    assert process.signals == sent


async def test_a_process_that_survives_all_is_the_guests_fault() -> None:
    process = Stubborn(0)

    with pytest.raises(GuestTimeout, match="did not end a step"):
        await stop(process, process.ended, QUICK)
    process.ended.cancel()


def test_githubs_times() -> None:
    timing = Timing()

    assert (timing.interrupt, timing.terminate, timing.cancel) == (7.5, 2.5, 300.0)
