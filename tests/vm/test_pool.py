"""A pool of real guests: what comes back is clean, what dies is replaced, what waits is warm."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from cloche.config import PoolSettings, data_dir
from cloche.image.store import ImageStore
from cloche.pool import VmPool
from cloche.pool.events import VmEnded, VmHandedOut, VmReset
from cloche.pool.hygiene import Hygiene, UncleanError
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.provider import GIB, VmSpec
from cloche.vm.qemu.provider import QemuProvider
from tests.e2e.place import lacking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cloche.pool import PoolEvent
    from cloche.vm.guest import JobRoot
    from cloche.vm.provider import Vm

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

SPEC = VmSpec(memory=GIB)
ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
DEADLINE = 60

SOIL = """\
echo mine > /left; echo mine > /tmp/left; echo mine > /home/left
mkdir /mnt/left && mount -t tmpfs left /mnt/left
setsid sleep 1000 > /dev/null 2>&1 &
python3 -c '
import os, socket, time
server = socket.create_server(("0.0.0.0", 5432))
if os.fork() == 0:
    time.sleep(1000)
' > /dev/null 2>&1
ip link add left0 type dummy
echo LEFT=1 >> /etc/environment
hostname soiled
date -s '2001-01-01'
echo soiled
"""
LOOK = """\
ls /left /tmp/left /home/left 2>/dev/null
grep left /proc/mounts /etc/environment /proc/net/dev
ls /proc | grep -c '^[0-9]'
cat /proc/net/tcp | wc -l
date +%Y
hostname
cat /proc/sys/kernel/random/boot_id
"""


class Place:
    """A pool, and what it told."""

    def __init__(self, provider: QemuProvider) -> None:
        self.told: list[PoolEvent] = []
        self.news = asyncio.Event()
        settings = PoolSettings(max=1, health_interval=600.0)
        self.pool = VmPool(provider, settings=settings, observer=self.hear)

    def hear(self, event: PoolEvent) -> None:
        self.told.append(event)
        self.news.set()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.told if type(event) is kind]

    async def ready(self) -> None:
        async with asyncio.timeout(DEADLINE):
            await self.pool.at_target()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    if reason := lacking("qemu"):
        pytest.skip(reason)
    made = Place(QemuProvider(ImageStore(data_dir()), data_dir(), tmp_path_factory.mktemp("vms")))
    async with made.pool:
        await made.pool.warm([SPEC])
        await made.pool.at_target()  # without a deadline of ours: it may have a template to make
        yield made


async def run(root: JobRoot, script: str) -> list[str]:
    async with asyncio.timeout(DEADLINE):
        process = await root.exec(ExecSpec(["bash", "-c", script], ENV, user="root"))
        said = b"".join([chunk async for chunk in process.output()])
        await process.wait()
    return said.decode().splitlines()


async def look(vm: Vm) -> list[str]:
    async with await vm.guest.open_job(JobRootSpec("look")) as root:
        return await run(root, LOOK)


async def test_a_used_vm_comes_back_under_its_id_and_clean(place: Place) -> None:
    first = (await place.pool.allocate(SPEC)).vm
    before = await look(first)
    root = await first.guest.open_job(JobRootSpec("soil"))  # and left open: the run was killed
    assert (await run(root, SOIL))[-1] == "soiled"
    with pytest.raises(UncleanError, match="clock"):
        await Hygiene().check(first, None)  # so that the pool's own check would have told
    await place.pool.release(first)
    second = (await place.pool.allocate(SPEC)).vm
    try:
        after = await look(second)
    finally:
        await place.pool.release(second)
    assert second.id == first.id
    *seen, name, boot_id = after
    assert seen == before[:-2]
    assert seen[-1] == time.strftime("%Y")
    assert name == second.id
    assert boot_id == second.guest.info.boot_id != before[-1]
    assert len(place.of(VmReset)) >= 1
    assert place.of(VmEnded) == []


async def test_what_waits_is_handed_out_at_once_and_has_unused_roots(place: Place) -> None:
    took = []
    for _ in range(3):
        await place.ready()
        allocation = await place.pool.allocate(SPEC)
        took.append(allocation.duration)
        found = await allocation.vm.guest.inspect()
        await place.pool.release(allocation.vm)
        assert allocation.source == "warm"
        assert found.state["jobs"] == ()
        # Those that wait are as the template made them: nothing was run in one of them to warm the guest up.
        roots = {line.partition(" /")[0] for line in found.state["mounts"] if line.startswith("root ")}
        assert roots == {"root 1:", "root 2:"}
        assert not any("warm-up" in line for line in found.state["files"])
        assert found.hostname == allocation.vm.id
    assert all(event.hit for event in place.of(VmHandedOut)[-3:])
    assert statistics.median(took) < 0.05  # bench/ measures; this only tells a wait for QEMU from none


async def test_a_qemu_killed_while_it_waits_is_replaced(place: Place) -> None:
    await place.ready()
    allocation = await place.pool.allocate(SPEC)
    vm: Any = allocation.vm
    await place.pool.release(vm)
    await place.ready()
    before = len(place.of(VmEnded))
    os.kill(vm.vm.process.pid, signal.SIGKILL)
    async with asyncio.timeout(DEADLINE):
        while len(place.of(VmEnded)) == before:
            place.news.clear()
            await place.news.wait()
    await place.ready()
    ended = place.of(VmEnded)[-1]
    assert (ended.vm_id, ended.why) == (vm.id, "lost")
    other = (await place.pool.allocate(SPEC)).vm
    try:
        assert other.id != vm.id
        assert await other.guest.ping() > 0
    finally:
        await place.pool.release(other)
