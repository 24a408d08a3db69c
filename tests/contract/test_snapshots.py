"""What every provider's snapshots hold: the files of job roots, the names, the boot id."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from cloche.errors import GuestError, ProviderError
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.provider import VmSpec
from cloche.vm.snapshot import VmSnapshot, snapshots_of
from tests.e2e.place import beside_images

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from cloche.vm.guest import JobRoot
    from cloche.vm.provider import Vm, VmProvider

    from .conftest import Run

    Script = Callable[..., ExecSpec]

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOOK = "cat /tmp/deep/file /proc/sys/kernel/random/boot_id; cat /tmp/mark; hostname; ls /tmp"


@pytest.fixture
def kept() -> Iterator[Path]:
    """Where snapshots are kept: on the file system of templates and images, to which they have links."""
    top = beside_images("contract")
    top.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=top, prefix="kept-") as folder:
        yield Path(folder)


@pytest_asyncio.fixture(loop_scope="session")
async def used(provider: VmProvider) -> AsyncIterator[Vm]:
    """A VM to keep and to put back: the one that the other tests have stays as it is."""
    vm = (await provider.allocate(VmSpec())).vm
    yield vm
    await provider.release(vm)


async def say(root: JobRoot, spec: ExecSpec) -> str:
    process = await root.exec(spec)
    output = b"".join([chunk async for chunk in process.output()]).decode()
    status = await process.wait()
    assert status.code == 0, (spec, status, output)
    return output


async def test_back_to_what_was_kept_and_two_vms_of_it(
    provider: VmProvider, used: Vm, script: Script, kept: Path
) -> None:
    takes = snapshots_of(provider)
    vm_id, first = used.id, used.guest
    one = await first.open_job(JobRootSpec("one", hostname="lily"))
    two = await first.open_job(JobRootSpec("two"))
    await say(
        one,
        script("mkdir /tmp/deep; echo content > /tmp/deep/file; echo one > /tmp/mark; chmod 500 /tmp/deep"),
    )
    await say(two, script("mkdir /tmp/deep; echo other > /tmp/deep/file; echo two > /tmp/mark"))
    before = await say(one, script(LOOK)), await say(two, script(LOOK))
    snapshot = await takes.snapshot(used, kept / "cut")
    assert before == (await say(one, script(LOOK)), await say(two, script(LOOK))), "the VM goes on"
    assert snapshot.size > 0
    assert (kept / "cut").stat().st_mode & 0o077 == 0
    await say(
        one, script("chmod 700 /tmp/deep; rm /tmp/deep/file; echo changed > /tmp/mark; echo > /tmp/new")
    )
    async with two:
        pass

    await takes.restore(used, snapshot)
    assert (used.id, used.guest.info.boot_id) == (vm_id, snapshot.boot_id)
    assert snapshot.boot_id == first.info.boot_id
    with pytest.raises(GuestError):
        await first.ping()
    roots = [used.guest.reopen_job(root.name) for root in (one, two)]
    assert before == tuple([await say(root, script(LOOK)) for root in roots])

    again = await takes.resume(VmSnapshot.load(kept / "cut"))
    try:
        assert again.source == "restored"
        assert again.vm.id != vm_id, "which is taken"
        theirs = again.vm.guest.reopen_job(one.name)
        assert await say(theirs, script(LOOK)) == before[0]
        await say(theirs, script("echo theirs > /tmp/mark"))
        assert await say(roots[0], script("cat /tmp/mark")) == "one\n"
        inside = await say(theirs, script("cat /proc/sys/kernel/random/boot_id"))
        assert inside.strip() == snapshot.boot_id
        async with await again.vm.guest.open_job(JobRootSpec("three")) as third:
            assert third.name not in {one.name, two.name}
            assert await say(third, script("hostname; ls /tmp")) == f"{again.vm.id}\n"
    finally:
        await provider.release(again.vm)
    async with roots[1]:
        pass
    await provider.reset(used)
    assert used.guest.info.boot_id != snapshot.boot_id


async def test_a_snapshot_outlives_its_vm_and_has_its_id(
    provider: VmProvider, used: Vm, script: Script, kept: Path
) -> None:
    takes = snapshots_of(provider)
    root = await used.guest.open_job(JobRootSpec("job"))
    await say(root, script("echo one > /tmp/mark"))
    await takes.snapshot(used, kept / "one")
    await provider.release(used)
    vm = (await takes.resume(VmSnapshot.load(kept / "one"))).vm
    try:
        assert vm.id == used.id
        await say(vm.guest.reopen_job(root.name), script("echo two >> /tmp/mark"))
        second = await takes.snapshot(vm, kept / "two")
        await takes.restore(vm, second)
        assert await say(vm.guest.reopen_job(root.name), script("cat /tmp/mark")) == "one\ntwo\n"
    finally:
        await provider.release(vm)


async def test_no_snapshot_while_something_is_under_way(
    provider: VmProvider, vm: Vm, root: JobRoot, script: Script, kept: Path
) -> None:
    process = await root.exec(script("echo up; sleep 1000"))
    assert await anext(process.output()) == b"up\n"
    with pytest.raises(GuestError, match="under way"):
        await snapshots_of(provider).snapshot(vm, kept / "cut")
    assert not (kept / "cut").exists()
    await process.signal(9)
    await process.wait()
    assert await say(root, script("echo on")) == "on\n"


async def test_what_cannot_be_written_leaves_nothing_and_the_vm_goes_on(
    provider: VmProvider, vm: Vm, run: Run, kept: Path
) -> None:
    (kept / "file").touch()
    with pytest.raises(ProviderError, match="could not be written"):
        await snapshots_of(provider).snapshot(vm, kept / "file" / "cut")
    (kept / "there").mkdir()
    (kept / "there" / "something").touch()
    with pytest.raises(ProviderError, match="could not be written"):
        await snapshots_of(provider).snapshot(vm, kept / "there")
    assert sorted(path.name for path in kept.rglob("*")) == ["file", "something", "there"]
    assert (await run("echo on"))[0] == b"on\n"


async def test_a_snapshot_of_something_else_makes_no_vm(provider: VmProvider, used: Vm, kept: Path) -> None:
    takes = snapshots_of(provider)
    snapshot = await takes.snapshot(used, kept / "cut")
    for path in kept.joinpath("cut").iterdir():
        if path.name != "snapshot.json" and path.is_file():
            path.unlink()
    (kept / "cut/snapshot.json").write_text(
        (kept / "cut/snapshot.json").read_text().replace(snapshot.made_by, "somebody else")
    )
    with pytest.raises(ProviderError, match="somebody else"):
        await takes.resume(VmSnapshot.load(kept / "cut"))
