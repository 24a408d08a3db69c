"""Snapshots of real guests: memory, devices and disk as they were, whatever has become of everything else."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from cloche.config import data_dir
from cloche.errors import GuestError, ProviderError
from cloche.image.store import ImageStore
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.provider import VmSpec
from cloche.vm.qemu.provider import QemuProvider
from cloche.vm.snapshot import VmSnapshot, snapshots_of
from tests.e2e.place import beside_images, lacking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from cloche.vm.guest import JobRoot
    from cloche.vm.qemu.vm import QemuVm

pytestmark = pytest.mark.vm
DEADLINE = 60.0
ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/home/runner"}


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[QemuProvider]:
    if reason := lacking("qemu"):
        pytest.skip(reason)
    provider = QemuProvider(ImageStore(data_dir()), data_dir(), tmp_path / "vms")
    yield provider
    await provider.close()
    assert list((tmp_path / "vms").iterdir()) == []


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """Where snapshots are kept: on the file system of templates and images, to which they have links."""
    folder = beside_images(tmp_path.name)
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


async def allocate(provider: QemuProvider) -> QemuVm:
    vm = (await provider.allocate(VmSpec())).vm
    return provider._live[vm.id]


async def run(root: JobRoot, script: str) -> str:
    async with asyncio.timeout(DEADLINE):
        process = await root.exec(ExecSpec(["bash", "-e", "-c", script], ENV))
        output = b"".join([chunk async for chunk in process.output()]).decode()
        status = await process.wait()
    assert status.code == 0, (script, status, output)
    return output


LOOK = """
cat /tmp/file /dev/shm/memory /tmp/beat.pid /etc/machine-id /proc/sys/kernel/random/boot_id; hostname
"""
BEGIN = """
echo one > /tmp/file; echo in memory > /dev/shm/memory
(while sleep 0.1; do date +%s > /tmp/beat; done) > /dev/null 2>&1 & echo $! > /tmp/beat.pid
"""
ALIVE = """
kill -0 $(cat /tmp/beat.pid); rm -f /tmp/beat; until test -s /tmp/beat; do sleep 0.05; done; cat /tmp/beat
"""


async def test_back_to_before_the_step_and_on_with_another_one(provider: QemuProvider, kept: Path) -> None:
    vm = await allocate(provider)
    root = await vm.guest.open_job(JobRootSpec("job"))
    await run(root, BEGIN)
    before = await run(root, LOOK)
    snapshot = await provider.snapshot(vm, kept / "cut")
    await run(root, "echo two >> /tmp/file; rm /dev/shm/memory; kill $(cat /tmp/beat.pid)")
    gone = vm.guest
    await provider.restore(vm, snapshot)
    with pytest.raises(GuestError):
        await gone.ping()
    root = vm.guest.reopen_job(root.name)
    assert await run(root, LOOK) == before
    assert vm.guest.info.boot_id == snapshot.boot_id in before
    assert abs(int(await run(root, ALIVE)) - time.time()) < DEADLINE, "what runs on has another clock"
    async with root:
        await run(root, "echo on >> /tmp/file")
    async with await vm.guest.open_job(JobRootSpec("another")) as other:
        assert (await run(other, "cat /proc/sys/kernel/random/boot_id")).strip() == snapshot.boot_id


async def test_a_snapshot_outlives_its_vm_its_provider_and_other_snapshots(
    provider: QemuProvider, kept: Path
) -> None:
    """Cut, go on, cut again, end everything; each cut is read from its folder and is the VM of its moment."""
    vm = await allocate(provider)
    root: JobRoot = await vm.guest.open_job(JobRootSpec("job"))
    for number in range(3):
        await run(root, f"echo {number} >> /tmp/file; head -c 5000000 /dev/urandom > /tmp/big-{number}; sync")
        await provider.snapshot(vm, kept / str(number))
    sums = await run(root, "cat /tmp/big-0 | sha256sum; cat /tmp/big-1 | sha256sum")
    await provider.release(vm)
    shutil.rmtree(kept / "2")
    shutil.rmtree(kept / "0")
    again = await provider.resume(VmSnapshot.load(kept / "1"))
    assert again.vm.id == vm.id
    root = again.vm.guest.reopen_job(root.name)
    assert await run(root, "cat /tmp/file; ls /tmp") == "0\n1\nbig-0\nbig-1\nfile\n"
    assert await run(root, "cat /tmp/big-0 | sha256sum; cat /tmp/big-1 | sha256sum") == sums
    await run(root, "echo on >> /tmp/file")
    later = await provider.snapshot(again.vm, kept / "later")
    await provider.release(again.vm)
    shutil.rmtree(kept / "1")
    last = await provider.resume(later)
    assert await run(last.vm.guest.reopen_job(root.name), "cat /tmp/file") == "0\n1\non\n"


async def test_two_vms_of_one_snapshot_are_two(provider: QemuProvider, kept: Path) -> None:
    vm = await allocate(provider)
    root = await vm.guest.open_job(JobRootSpec("job"))
    await run(root, "echo one > /tmp/file")
    snapshot = await provider.snapshot(vm, kept / "cut")
    other = (await provider.resume(snapshot)).vm
    assert other.id != vm.id, "the id is taken"
    theirs = other.guest.reopen_job(root.name)
    await run(theirs, "echo two > /tmp/file")
    assert (await run(root, "cat /tmp/file"), await run(theirs, "cat /tmp/file")) == ("one\n", "two\n")
    draw = "head -c 16 /dev/urandom | od -An -tx1"
    assert await run(root, draw) != await run(theirs, draw)


async def test_no_snapshot_while_something_is_under_way(provider: QemuProvider, kept: Path) -> None:
    vm = await allocate(provider)
    root = await vm.guest.open_job(JobRootSpec("job"))
    process = await root.exec(ExecSpec(["sleep", "1000"], ENV))
    with pytest.raises(GuestError, match="under way"):
        await provider.snapshot(vm, kept / "cut")
    assert not (kept / "cut").exists()
    await process.signal(9)
    await process.wait()
    assert (await provider.snapshot(vm, kept / "cut")).size > 0


async def test_what_cannot_be_written_leaves_nothing_and_the_vm_goes_on(
    provider: QemuProvider, kept: Path
) -> None:
    vm = await allocate(provider)
    root = await vm.guest.open_job(JobRootSpec("job"))
    (kept / "file").touch()
    (kept / "theirs").mkdir()
    (kept / "theirs" / "precious").touch()
    with pytest.raises(ProviderError, match="could not be written"):
        await provider.snapshot(vm, kept / "theirs")
    assert (kept / "theirs" / "precious").exists(), "what was there before is not ours to remove"
    with pytest.raises(ProviderError, match="could not be written"):
        await provider.snapshot(vm, kept / "file" / "cut")
    assert await run(root, "echo on") == "on\n"
    snapshot = await provider.snapshot(vm, kept / "cut")
    private = [kept / "cut", *(kept / "cut" / name for name in ("state", "pages", "layers/layer-0.qcow2"))]
    assert {path.stat().st_mode & 0o077 for path in private} == {0}
    await run(root, "echo two > /tmp/file")
    await provider.restore(vm, snapshot)
    assert await run(vm.guest.reopen_job(root.name), "ls /tmp") == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [({"made_by": "QEMU 1.0"}, "QEMU 1.0"), ({"version": 99}, "format 99"), ({"extra": {}}, "damaged")],
)
async def test_a_snapshot_of_something_else_is_refused(
    provider: QemuProvider, kept: Path, change: dict[str, object], said: str
) -> None:
    vm = await allocate(provider)
    await provider.snapshot(vm, kept / "cut")
    await provider.release(vm)
    told = json.loads((kept / "cut/snapshot.json").read_text())
    (kept / "cut/snapshot.json").write_text(json.dumps({**told, **change}))
    with pytest.raises(ProviderError, match=said):
        await provider.resume(VmSnapshot.load(kept / "cut"))


@pytest.mark.parametrize(
    "missing", ["state", "pages", "template/memory", "layers/layer-0.qcow2", "snapshot.json"]
)
async def test_half_a_snapshot_is_none(provider: QemuProvider, kept: Path, missing: str) -> None:
    vm = await allocate(provider)
    await provider.snapshot(vm, kept / "cut")
    await provider.release(vm)
    (kept / "cut" / missing).unlink()
    with pytest.raises(ProviderError):
        await provider.resume(VmSnapshot.load(kept / "cut"))


def test_who_takes_none_says_so() -> None:
    with pytest.raises(ProviderError, match="takes no snapshots"):
        snapshots_of(object())
