"""QEMU itself, without a guest: how it starts, fails to, and ends."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from cloche.errors import GuestLost, ProviderError
from cloche.vm.hostgroups import HostGroup
from cloche.vm.qemu.process import QemuProcess

BINARY = "qemu-system-x86_64"
pytestmark = pytest.mark.skipif(shutil.which(BINARY) is None, reason="QEMU is not installed")
DEADLINE = 20


def command(qmp: int, agent: int, console: int, *extra: str) -> list[str]:
    return [
        BINARY, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "none", "-S",
        "-chardev", f"socket,id=qmp,fd={qmp}", "-mon", "chardev=qmp,mode=control",
        "-chardev", f"socket,id=agent,fd={agent}", "-chardev", f"socket,id=console,fd={console}", *extra,
    ]  # fmt: skip


def descriptors() -> set[str]:
    return {str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


async def test_a_monitor_answers_until_qemu_is_killed() -> None:
    before = descriptors()
    process = await QemuProcess.start(command)
    assert isinstance(await process.execute("query-status"), dict)
    with pytest.raises(ProviderError, match="refused 'no-such-command'"):
        await process.execute("no-such-command")
    await process.kill()
    await process.kill()
    assert process.child.ended
    with pytest.raises(ProviderError):
        await process.execute("query-status")
    assert descriptors() <= before


async def test_qemus_own_words_are_in_the_error_when_it_does_not_start() -> None:
    before = descriptors()
    with pytest.raises(ProviderError, match="no-such-device"):
        await QemuProcess.start(lambda *fds: command(*fds, "-device", "no-such-device"))
    assert descriptors() <= before


async def test_a_qemu_that_is_missing_is_an_error_too() -> None:
    with pytest.raises(ProviderError, match="not found"):
        await QemuProcess.start(lambda *_fds: ["/no/such/qemu"])


async def test_a_state_that_makes_no_sense_is_an_error(tmp_path: Path) -> None:
    process = await QemuProcess.start(lambda *fds: command(*fds, "-incoming", "defer"))
    (tmp_path / "state").write_bytes(b"this is no state")
    with (tmp_path / "state").open("rb") as state:
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(ProviderError):
                await process.migrate("migrate-incoming", state.fileno())
    await process.kill()


async def test_whoever_waits_for_the_guest_learns_of_qemus_end() -> None:
    process = await QemuProcess.start(command)
    connecting = asyncio.create_task(process.agent.connect(DEADLINE))
    await asyncio.sleep(0)
    await process.execute("quit")
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(GuestLost):
            await connecting
        await process.child.wait()
    await process.kill()


class Folder(HostGroup):
    """A folder that stands for a group: what the kernel keeps in one goes with it."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        super().__init__(path)

    def remove(self) -> None:
        for file in self.path.glob("*"):
            file.unlink()
        super().remove()


async def test_a_group_has_qemu_and_goes_with_it(tmp_path: Path) -> None:
    group = Folder(tmp_path / "vm-1")
    process = await QemuProcess.start(command, group=group)
    assert (group.path / "cgroup.procs").read_text() == str(process.pid)
    await process.kill()
    await process.kill()
    assert not group.path.exists()


@pytest.mark.parametrize("argv", [["/no/such/qemu"], [BINARY, "-device", "no-such-device"]])
async def test_a_group_does_not_outlive_a_failed_start(tmp_path: Path, argv: list[str]) -> None:
    group = Folder(tmp_path / "vm-1")
    with pytest.raises(ProviderError):
        await QemuProcess.start(lambda *_fds: argv, group=group)
    assert not group.path.exists()


async def test_a_qemu_that_the_host_killed_for_memory_is_told_as_that(tmp_path: Path) -> None:
    group = Folder(tmp_path / "vm-1")
    process = await QemuProcess.start(command, group=group)
    (group.path / "memory.events").write_text("oom 1\noom_kill 1\n")
    assert process.last_words == "this host killed QEMU for want of memory"
    await process.kill()
