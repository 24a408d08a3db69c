"""A pool whose VMs are killed at moments of chance, over real processes: nothing is shared, lost or left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cloche.config import PoolSettings, data_dir
from cloche.errors import GuestError, ProviderError
from cloche.image.store import ImageStore
from cloche.pool import VmPool
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.provider import VmSpec
from cloche.vm.sandbox.provider import SandboxProvider
from tests.e2e.place import lacking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.vm.provider import Vm

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(300)]

SPEC = VmSpec()
DEADLINE = 100
MARK = "[ -e /tmp/mark ] && echo leaked; echo mine > /tmp/mark; hostname"


class Killer:
    """Kills one of the processes that hold a sandbox together, those of this provider only."""

    def __init__(self, vms: Path, chance: random.Random) -> None:
        self._vms = vms
        self._chance = chance
        self.kills = 0

    def strike(self) -> None:
        pids = [pid for first in self._firsts() for pid in _tree(first)]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._chance.choice(pids), signal.SIGKILL)
                self.kills += 1

    def _firsts(self) -> Iterator[int]:
        for record in self._vms.glob("*/vm.json"):
            with contextlib.suppress(OSError, ValueError):
                yield int(record.read_text("ascii").partition('"pid": ')[2].partition(",")[0])


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in _tree(int(child)))]


async def use(vm: Vm) -> None:
    """One run: it must find nothing of another's, whatever is killed meanwhile."""
    with contextlib.suppress(GuestError):
        async with await vm.guest.open_job(JobRootSpec("job")) as root:
            process = await root.exec(ExecSpec(["/bin/sh", "-c", MARK], {"PATH": "/usr/bin:/bin"}))
            said = b"".join([chunk async for chunk in process.output()])
            status = await process.wait()
            assert b"leaked" not in said
            assert status.code or said == f"{vm.id}\n".encode()


async def test_twenty_kills(tmp_path: Path) -> None:
    if reason := lacking("sandbox"):
        pytest.skip(reason)
    chance = random.Random(20)  # noqa: S311 - the same moments each time
    vms = tmp_path / "vms"
    killer = Killer(vms, chance)
    settings = PoolSettings(max=3, target=2, health_interval=1.0, max_uses=4)
    pool = VmPool(SandboxProvider(ImageStore(data_dir()), vms), settings=settings)
    held: set[str] = set()

    async def run_again_and_again() -> None:
        while killer.kills < 20:
            try:
                vm: Any = (await pool.allocate(SPEC)).vm
            except ProviderError:
                continue
            assert vm.id not in held
            held.add(vm.id)
            await use(vm)
            held.discard(vm.id)
            await pool.release(vm)

    async def kill_now_and_then() -> None:
        while killer.kills < 20:
            await asyncio.sleep(chance.uniform(0.0, 0.3))
            killer.strike()

    async with asyncio.timeout(DEADLINE), pool:
        await pool.warm([SPEC])
        async with asyncio.TaskGroup() as group:
            for work in (run_again_and_again, run_again_and_again, kill_now_and_then):
                group.create_task(work())
        while True:
            with contextlib.suppress(ProviderError):
                await pool.at_target()
                break
        stats = pool.stats
        assert (stats.active, stats.idle) == (0, 2)
        assert len(list(vms.iterdir())) == stats.alive
    assert list(vms.iterdir()) == []
