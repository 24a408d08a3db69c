"""The disk by which large archives reach a guest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cloche.errors import GuestError
from cloche.vm.inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SIZE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "inbox"
    file.write_bytes(b"\0" * SIZE)
    return file


async def parts(*content: bytes) -> AsyncIterator[bytes]:
    for part in content:
        yield part


async def test_holds_an_archive_for_the_block_and_nothing_after(path: Path) -> None:
    async with Inbox(path).holding(parts(b"abc", b"def")) as size:
        assert size == 6
        assert path.read_bytes()[:6] == b"abcdef"

    assert path.read_bytes() == b"\0" * SIZE


async def test_its_size_never_changes_for_the_guest(path: Path) -> None:
    async with Inbox(path).holding(parts(b"x" * 100)):
        assert path.stat().st_size == SIZE
    assert path.stat().st_size == SIZE


async def test_what_does_not_fit_is_refused_and_leaves_nothing(path: Path) -> None:
    inbox = Inbox(path)

    with pytest.raises(GuestError, match=r"do not fit on the VM's disk \(--disk\)"):
        async with inbox.holding(parts(b"x" * SIZE, b"y")):
            pytest.fail("there is nothing to hand over")

    assert path.read_bytes() == b"\0" * SIZE


async def test_one_archive_at_a_time(path: Path) -> None:
    inbox = Inbox(path)
    first_holds, let_go = asyncio.Event(), asyncio.Event()
    seen: list[bytes] = []

    async def first() -> None:
        async with inbox.holding(parts(b"first")):
            first_holds.set()
            await let_go.wait()
            seen.append(path.read_bytes()[:6])

    async def second() -> None:
        await first_holds.wait()
        async with asyncio.timeout(10):
            waiting = asyncio.create_task(asyncio.wait_for(hold_second(), 10))
            await asyncio.sleep(0)
            let_go.set()
            await waiting

    async def hold_second() -> None:
        async with inbox.holding(parts(b"second")):
            seen.append(path.read_bytes()[:6])

    await asyncio.gather(first(), second())

    assert seen == [b"first\0", b"second"]


async def test_an_archive_that_breaks_off_leaves_nothing(path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise OSError("the repository went away")

    with pytest.raises(OSError, match="went away"):
        async with Inbox(path).holding(broken()):
            pytest.fail("there is nothing to hand over")

    assert path.read_bytes() == b"\0" * SIZE
