"""A shell in a guest that another process has: here the same process stands on both sides of the door."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
from typing import TYPE_CHECKING, Self

import pytest

from cloche.daemon.packets import Packets
from cloche.errors import ClocheError, GuestError, UsageError
from cloche.terminal.door import Door, House, choose, read_size
from cloche.terminal.joining import join
from cloche.terminal.rooms import Room
from cloche.terminal.visit import Address, Knocking, doors
from cloche.vm.fake import FakeProvider, FakeRoot
from cloche.vm.guest import ExecSpec, JobRootSpec, TtySize
from cloche.vm.provider import VmSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cloche.terminal.visit import Visit
    from cloche.vm.guest import JobRoot

DEADLINE = 10
ENV = {"PATH": "/usr/bin", "STEP": "yes"}


class Flat:
    """A run of one job, ``build``, and its door."""

    def __init__(self, root: JobRoot, path: Path) -> None:
        self.rooms = [Room("build", "Run make", root, lambda: ExecSpec(["make"], ENV, "/tmp"))]
        self.path = path
        self.door = Door(path, House(lambda: {"workflow": "CI"}, lambda: self.rooms), Packets)
        self.address = Address(path.name, path)
        self.knocking = Knocking(Packets)

    async def enter(self, job: str | None = None, size: TtySize | None = None) -> Visit:
        return await self.knocking.enter(self.address, job=job, size=size, terminal="xterm")


@pytest.fixture
async def flat(tmp_path: Path) -> AsyncIterator[Flat]:
    provider = FakeProvider()
    vm = (await provider.allocate(VmSpec())).vm
    root = await vm.guest.open_job(JobRootSpec("build"))
    made = Flat(root, tmp_path / ("deep" * 40) / "run-1")
    yield made
    await made.door.close("the run has ended")
    assert not made.path.exists()
    await provider.close()


class Typed:
    """Somebody at the two ends of a visit: what they type, and what they see. Leaving it hangs up."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._near, self._far = socket.socketpair()
        self._near.setblocking(False)
        self.ended = asyncio.create_task(join(visit, self._far.fileno(), self._far.fileno()))
        self._seen = b""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.ended.cancel()
        await asyncio.gather(self.ended, return_exceptions=True)
        self._visit.close()
        self._near.close()
        self._far.close()

    async def type(self, text: str) -> None:
        await asyncio.get_running_loop().sock_sendall(self._near, text.encode())

    async def sees(self, text: str) -> None:
        async with asyncio.timeout(DEADLINE):
            while text.encode() not in self._seen:
                data = await asyncio.get_running_loop().sock_recv(self._near, 4096)
                assert data, self._seen
                self._seen += data

    def finish_typing(self) -> None:
        self._near.shutdown(socket.SHUT_WR)

    async def code(self) -> int:
        async with asyncio.timeout(DEADLINE):
            return (await self.ended).code


async def test_what_is_there_is_told(flat: Flat) -> None:
    assert await flat.knocking.look(flat.address) == {
        "workflow": "CI",
        "rooms": [{"job": "build", "id": "", "step": "Run make"}],
        "ends": False,
    }
    assert stat.S_IMODE(flat.path.stat().st_mode) == 0o600
    assert doors(flat.path.parent) == [flat.address]


async def test_commands_by_a_pipe_find_what_the_step_found(flat: Flat) -> None:
    async with Typed(await flat.enter()) as typed:
        await typed.type("echo $STEP in $PWD\nexit 7\n")
        typed.finish_typing()
        await typed.sees("yes in /tmp\n")
        assert await typed.code() == 7


async def test_who_hangs_up_takes_the_shell_along(flat: Flat) -> None:
    visit = await flat.enter(size=TtySize(24, 80))
    root = flat.rooms[0].root
    assert isinstance(root, FakeRoot)
    (shell,) = root.guest.under_way
    await visit.write(b"sleep 1000\n")
    visit.close()
    async with asyncio.timeout(DEADLINE):
        assert (await shell.wait()).signal == signal.SIGHUP


async def test_the_runs_end_ends_the_shell_with_a_word_why(flat: Flat) -> None:
    async with Typed(await flat.enter(size=TtySize(24, 80))) as typed:
        await flat.door.close("the run has ended")
        with pytest.raises(ClocheError, match="the run has ended"):
            await typed.code()


async def test_the_jobs_end_ends_the_shell(flat: Flat) -> None:
    async with Typed(await flat.enter(size=TtySize(24, 80))) as typed:
        async with flat.rooms.pop().root:
            pass
        assert await typed.code() == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("rooms", "job", "said"),
    [([], None, "no job is running"), (["a", "b"], None, "several jobs"), (["a"], "c", "no job 'c'")],
)
def test_which_job_is_not_clear(rooms: list[str], job: str | None, said: str) -> None:
    made = [Room(name, "", None, lambda: ExecSpec([])) for name in rooms]  # type: ignore[arg-type] # nobody goes in
    with pytest.raises(UsageError, match=said):
        choose(made, job)


async def test_a_job_that_is_not_there_is_refused(flat: Flat) -> None:
    with pytest.raises(UsageError, match="no job 'test'"):
        await flat.enter("test")


@pytest.mark.parametrize("size", [[0, 80], [24], "24x80", [24, 5000], [24.0, 80], {}, True])
def test_sizes_that_are_none(size: object) -> None:
    with pytest.raises(UsageError):
        read_size(size)


@pytest.mark.parametrize("said", [b"{}", b"[]", b"nonsense", b'{"op": "enter"}', b'{"op": "end"}'])
async def test_nonsense_is_answered_and_harms_nobody(flat: Flat, said: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.setblocking(False)
        folder = os.open(flat.path.parent, os.O_PATH)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stranger, f"/proc/self/fd/{folder}/{flat.path.name}")
        os.close(folder)
        await loop.sock_sendall(stranger, said)
        async with asyncio.timeout(DEADLINE):
            assert b"nonsense" in await loop.sock_recv(stranger, 4096)
    assert await flat.knocking.look(flat.address)


async def test_a_dead_process_leaves_a_door_that_is_removed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(tmp_path / "run-1"))
    address = Address("run-1", tmp_path / "run-1")
    assert await Knocking(Packets).look(address) is None
    assert not address.path.exists()
    with pytest.raises((UsageError, GuestError), match="has ended"):
        await Knocking(Packets).enter(address, job=None, size=None, terminal="dumb")
