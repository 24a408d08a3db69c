"""Snapshots against QEMU's own: how long the VM stands still, how soon it is back, and what fifty in a row cost."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from typing import TYPE_CHECKING, NamedTuple

from cloche.config import data_dir, vms_dir
from cloche.image.store import ImageStore
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.provider import GIB, VmSpec
from cloche.vm.qemu import machine
from cloche.vm.qemu.process import QemuProcess
from cloche.vm.qemu.provider import QemuProvider

if TYPE_CHECKING:
    from pathlib import Path

    from cloche.vm.guest import JobRoot
    from cloche.vm.qemu.vm import QemuVm

SPEC = VmSpec(memory=GIB)
CHANGED = 25
"""MiB that the guest writes to its memory before it is kept."""
IN_A_ROW = 50
EACH = 1
"""MiB that it writes before each of those."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Kept(NamedTuple):
    """Seconds: standing still for a snapshot and for QEMU's migration to a file; until it answered again."""

    paused: list[float]
    plain_paused: list[float]
    back: list[float]
    plain_back: list[float]


class Row(NamedTuple):
    """Fifty snapshots: seconds of pause and bytes of each."""

    paused: list[float]
    size: list[int]


async def keep(rounds: int, folder: Path) -> Kept:
    """Keep a VM and put it back, by us and by plain migration of the same VM, in turn."""
    kept = Kept([], [], [], [])
    for number in range(rounds):
        provider = QemuProvider(ImageStore(data_dir()), data_dir(), vms_dir())
        try:
            await _keep_one(provider, folder / str(number), kept)
        finally:
            await provider.close()
            shutil.rmtree(folder / str(number), ignore_errors=True)
    return kept


async def _keep_one(provider: QemuProvider, folder: Path, kept: Kept) -> None:
    vm = provider._live[(await provider.allocate(SPEC)).vm.id]
    root = await vm.guest.open_job(JobRootSpec("bench"))
    await run(root, f"head -c {CHANGED}M /dev/urandom > /dev/shm/changed")
    snapshot = await provider.snapshot(vm, folder / "ours")
    kept.paused.append(snapshot.paused)
    plain = folder / "plain"
    kept.plain_paused.append(await _migrate(vm, plain))
    started = time.perf_counter()
    await provider.restore(vm, snapshot)
    kept.back.append(time.perf_counter() - started)
    await run(vm.guest.reopen_job(root.name), f"test $(stat -c %s /dev/shm/changed) = {CHANGED << 20}")
    kept.plain_back.append(await _come_back(provider, vm, plain))


async def _migrate(vm: QemuVm, path: Path) -> float:
    """Have QEMU write all of a stopped VM, memory too, to a file."""
    capability = {"capability": "x-ignore-shared", "state": False}
    await vm.process.execute("migrate-set-capabilities", {"capabilities": [capability]})
    await vm.process.execute("migrate-set-parameters", {"max-bandwidth": 1 << 40})
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        started = time.perf_counter()
        await vm.process.execute("stop")
        await vm.process._transfer("migrate", descriptor)
        await vm.process.execute("cont")
        return time.perf_counter() - started
    finally:
        os.close(descriptor)


async def _come_back(provider: QemuProvider, vm: QemuVm, path: Path) -> float:
    """Start a QEMU on that file, with memory of its own; seconds to the agent's answer."""
    template = vm.template
    guest, number = vm.guest.info, vm.guest._last_number
    layers = (template.disk, *vm.layers)
    memory, disk = path.with_name("memory"), path.with_name("disk.qcow2")
    with memory.open("wb") as file:
        file.truncate(template.shape.memory)
    shutil.copyfile(template.overlay, disk)
    started = time.perf_counter()
    process = await QemuProcess.start(
        lambda qmp, agent, console: machine.command(
            provider._binary, template.shape, template.boot,
            machine.Wiring(
                memory=memory, private=False, disk=disk, inbox=vm.lease.folder / "inbox", network="user",
                qmp=qmp, agent=agent, console=console, incoming=True, layers=layers,
            ),
        )
    )  # fmt: skip
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            await process.load_devices(descriptor)
        finally:
            os.close(descriptor)
        await process.execute("cont")
        await process.agent.take_over(guest, number)
        await process.agent.ping()
        return time.perf_counter() - started
    finally:
        await process.kill()


async def in_a_row(folder: Path) -> Row:
    """Fifty snapshots of one VM, which writes a little before each, always in the same place."""
    row = Row([], [])
    provider = QemuProvider(ImageStore(data_dir()), data_dir(), vms_dir())
    try:
        vm = (await provider.allocate(SPEC)).vm
        root = await vm.guest.open_job(JobRootSpec("bench"))
        for number in range(IN_A_ROW):
            await run(
                root, f"head -c {EACH}M /dev/urandom > /dev/shm/changed; cp /dev/shm/changed /tmp/changed"
            )
            snapshot = await provider.snapshot(vm, folder / f"row-{number}")
            row.paused.append(snapshot.paused)
            row.size.append(snapshot.size)
    finally:
        await provider.close()
        shutil.rmtree(folder, ignore_errors=True)
    return row


async def run(root: JobRoot, script: str) -> None:
    """Run a script that has to succeed."""
    process = await root.exec(ExecSpec(["bash", "-e", "-c", script], {"PATH": PATH}))
    async for _ in process.output():
        pass
    assert (await process.wait()).code == 0


def measure(rounds: int) -> tuple[Kept, Row]:
    """Both, on the file system of templates: snapshots have links to them."""
    folder = data_dir().with_name("cloche-bench") / str(os.getpid())
    folder.mkdir(parents=True)
    try:
        return asyncio.run(keep(rounds, folder)), asyncio.run(in_a_row(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
