from __future__ import annotations

import asyncio

import pytest

from cloche.tasks import finish


async def test_the_result_comes_through() -> None:
    async def work() -> int:
        return 3

    assert await finish(work()) == 3


async def test_an_exception_comes_through() -> None:
    async def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await finish(work())


async def test_cancelling_the_caller_does_not_stop_the_work() -> None:
    going, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await going.wait()
        done.set()

    caller = asyncio.create_task(finish(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    going.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done.is_set()


async def test_a_cancelled_caller_stays_cancelled_when_the_work_fails() -> None:
    going = asyncio.Event()

    async def work() -> None:
        await going.wait()
        raise ValueError("broken")

    caller = asyncio.create_task(finish(work()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.sleep(0)
    going.set()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_work_that_was_cancelled_itself() -> None:
    work = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finish(work)
