"""The pool's own measurements: what a warm VM costs, how soon it is there, how soon it is back."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cloche.config import PoolSettings, data_dir, vms_dir
from cloche.image.store import ImageStore
from cloche.pool import VmPool
from cloche.pool.events import VmEnded, VmReset
from cloche.pool.hygiene import warm_up
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.provider import GIB, VmSpec
from cloche.vm.qemu.provider import QemuProvider

if TYPE_CHECKING:
    from cloche.vm.provider import Vm

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SPEC = VmSpec()
ALIVE = 10
_SETTLING = 3.0


class Hits(NamedTuple):
    """Seconds that callers waited for a VM that was ready."""

    waited: list[float]

    @property
    def p99(self) -> float:
        """What all but one in a hundred waited at most."""
        return statistics.quantiles(self.waited, n=100, method="inclusive")[98]


def _provider() -> QemuProvider:
    return QemuProvider(ImageStore(data_dir()), data_dir(), vms_dir())


async def hits(rounds: int) -> Hits:
    """Take a ready VM, run a step in it, give it back, wait until it is ready again; and once more."""
    waited = []
    told: list[Any] = []
    async with VmPool(_provider(), settings=PoolSettings(max=2), observer=told.append) as pool:
        await pool.warm([SPEC])
        for _ in range(rounds):
            await pool.at_target()
            started = time.perf_counter()
            allocation = await pool.allocate(SPEC)
            waited.append(time.perf_counter() - started)
            await use(allocation.vm)
            await pool.release(allocation.vm)
        assert sum(isinstance(event, VmReset) for event in told) >= rounds - 1
        assert not any(isinstance(event, VmEnded) and event.why != "surplus" for event in told)
    return Hits(waited)


async def resets(rounds: int) -> tuple[list[float], list[float]]:
    """Seconds to reset a used VM, and to resume a new one, in turn."""
    provider = _provider()
    reset, resumed = [], []
    try:
        for number in range(rounds + 1):
            allocation = await provider.allocate(SPEC)
            await use(allocation.vm)
            started = time.perf_counter()
            await provider.reset(allocation.vm)
            took = time.perf_counter() - started
            await provider.release(allocation.vm)
            if number:  # the first warms caches, or makes the template
                reset.append(took)
                resumed.append(allocation.duration)
    finally:
        await provider.close()
    return reset, resumed


async def memory(*, warm: bool) -> list[float]:
    """Megabytes that each of ten idle VMs of 1 GiB takes in proportion (proc_pid_smaps(5), Pss).

    ``warm``: as a pool has them, with one program run in each, whose translation emulation keeps.
    """
    provider = _provider()
    try:
        vms: list[Any] = [(await provider.allocate(VmSpec(memory=GIB))).vm for _ in range(ALIVE)]
        for vm in vms if warm else ():
            await warm_up(vm.guest)
        await asyncio.sleep(_SETTLING)
        return [_pss(vm.process.pid) for vm in vms]
    finally:
        await provider.close()


def _pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("smaps_rollup without Pss")


async def use(vm: Vm) -> None:
    """Run a step."""
    async with await vm.guest.open_job(JobRootSpec("bench")) as root:
        process = await root.exec(ExecSpec(["bash", "-c", "echo used > /tmp/used"], {"PATH": PATH}))
        await process.wait()
