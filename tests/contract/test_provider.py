from __future__ import annotations

import asyncio
import contextlib
import re
from typing import TYPE_CHECKING

import pytest

from cloche.errors import GuestError, ProviderError
from cloche.pool.hygiene import Hygiene, warm_up
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.provider import VmSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.vm.guest import JobRoot
    from cloche.vm.provider import Vm, VmProvider

pytestmark = pytest.mark.asyncio(loop_scope="session")

READ_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


async def output(root: JobRoot, spec: ExecSpec) -> bytes:
    process = await root.exec(spec)
    return b"".join([chunk async for chunk in process.output()])


async def test_an_allocated_vm_answers(provider: VmProvider) -> None:
    allocation = await provider.allocate(VmSpec(cpus=1))
    vm = allocation.vm
    try:
        assert re.fullmatch(r"vm-[0-9a-f]{12}", vm.id)
        assert vm.provider == provider.name
        assert allocation.duration >= 0
        assert allocation.source in {"warm", "restored", "booted"}
        assert vm.guest.info.boot_id
        assert vm.guest.info.kernel
        assert await vm.guest.ping() >= 0
    finally:
        await provider.release(vm)


async def test_vms_have_ids_and_boot_ids_of_their_own(provider: VmProvider, vm: Vm) -> None:
    other = (await provider.allocate(VmSpec())).vm
    try:
        assert other.id != vm.id
        assert other.guest.info.boot_id != vm.guest.info.boot_id
    finally:
        await provider.release(other)


async def test_the_boot_id_is_the_one_read_inside(
    vm: Vm, root: JobRoot, script: Callable[..., ExecSpec]
) -> None:
    process = await root.exec(script(READ_BOOT_ID))
    inside = b"".join([chunk async for chunk in process.output()]).decode().strip()
    status = await process.wait()
    assert (inside, status.boot_id) == (vm.guest.info.boot_id, vm.guest.info.boot_id)


async def test_the_shape_asked_for_is_the_shape_given(provider: VmProvider) -> None:
    vm = (await provider.allocate(VmSpec(cpus=1))).vm
    try:
        assert vm.guest.info.cpus >= 1
        assert vm.guest.info.memory > 0
    finally:
        await provider.release(vm)


async def test_a_file_of_one_vm_is_not_in_another(
    provider: VmProvider, root: JobRoot, script: Callable[..., ExecSpec]
) -> None:
    assert await output(root, script("echo mine > /tmp/mark; cat /tmp/mark")) == b"mine\n"
    other = (await provider.allocate(VmSpec())).vm
    try:
        async with await other.guest.open_job(JobRootSpec("other")) as elsewhere:
            assert await output(elsewhere, script("[ -e /tmp/mark ] && echo leaked")) == b""
    finally:
        await provider.release(other)


async def test_release_ends_what_runs_and_may_be_repeated(
    provider: VmProvider, script: Callable[..., ExecSpec]
) -> None:
    vm = (await provider.allocate(VmSpec())).vm
    root = await vm.guest.open_job(JobRootSpec("doomed"))
    process = await root.exec(script("echo up; sleep 1000"))
    assert await anext(process.output()) == b"up\n"
    waiting = asyncio.create_task(process.wait())
    await provider.release(vm)
    await provider.release(vm)
    with pytest.raises(GuestError):
        async with asyncio.timeout(10):
            await waiting
    with pytest.raises(GuestError):
        await vm.guest.open_job(JobRootSpec("late"))
    with pytest.raises(GuestError):
        await vm.guest.ping()


async def test_a_reset_vm_is_as_if_nothing_had_ever_run_in_it(
    provider: VmProvider, script: Callable[..., ExecSpec]
) -> None:
    vm = (await provider.allocate(VmSpec())).vm
    try:
        vm_id, used = vm.id, vm.guest
        root = await used.open_job(JobRootSpec("job"))
        process = await root.exec(script("echo mine > /tmp/mark; echo up; sleep 1000"))
        assert await anext(process.output()) == b"up\n"
        await provider.reset(vm)
        assert vm.id == vm_id == vm.guest.info.hostname
        assert vm.guest.info.boot_id != used.info.boot_id
        with pytest.raises(GuestError):
            await used.ping()
        async with await vm.guest.open_job(JobRootSpec("next")) as fresh:
            found = await output(fresh, script(f"[ -e /tmp/mark ] && echo leaked; {READ_BOOT_ID}"))
        assert found.decode().strip() == vm.guest.info.boot_id
    finally:
        await provider.release(vm)
    with pytest.raises(GuestError):
        await vm.guest.ping()


async def test_what_is_in_a_vm_is_seen_and_gone_after_a_reset(
    provider: VmProvider, script: Callable[..., ExecSpec]
) -> None:
    checks = Hygiene()
    vm = (await provider.allocate(VmSpec())).vm
    try:
        fresh = await checks.check(vm, None)
        assert (fresh.hostname, fresh.boot_id) == (vm.id, vm.guest.info.boot_id)
        root = await vm.guest.open_job(JobRootSpec("job"))
        assert await output(root, script("hostname")) == f"{vm.id}\n".encode()
        process = await root.exec(script("echo up; sleep 1000"))
        assert await anext(process.output()) == b"up\n"
        used = await vm.guest.inspect()
        assert used.state["jobs"] != fresh.state["jobs"]
        assert used.state["processes"] != fresh.state["processes"]
        assert used.entropy != fresh.entropy or provider.name == "fake"
        await provider.reset(vm)
        await checks.check(vm, fresh)
        await warm_up(vm.guest)
        await checks.settle(vm, fresh)
    finally:
        await provider.release(vm)


async def test_the_end_of_a_vm_is_told_to_who_waits_for_it(provider: VmProvider) -> None:
    vm = (await provider.allocate(VmSpec())).vm
    waiting = asyncio.create_task(vm.guest.lost())
    await asyncio.sleep(0)
    assert not waiting.done()
    await provider.release(vm)
    async with asyncio.timeout(10):
        assert "released" in (await waiting).message


async def test_only_a_vm_that_lives_can_be_reset(provider: VmProvider) -> None:
    vm = (await provider.allocate(VmSpec())).vm
    await provider.release(vm)
    with pytest.raises(ProviderError):
        await provider.reset(vm)


async def test_vms_are_allocated_side_by_side(provider: VmProvider) -> None:
    allocations = await asyncio.gather(*(provider.allocate(VmSpec(cpus=1)) for _ in range(3)))
    vms = [allocation.vm for allocation in allocations]
    try:
        assert len({vm.id for vm in vms}) == len({vm.guest.info.boot_id for vm in vms}) == 3
    finally:
        await asyncio.gather(*map(provider.release, vms))


async def test_a_cancelled_allocation_leaves_the_provider_usable(provider: VmProvider) -> None:
    starting = asyncio.create_task(provider.allocate(VmSpec()))
    await asyncio.sleep(0)
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await provider.release((await starting).vm)
    vm = (await provider.allocate(VmSpec())).vm
    assert await vm.guest.ping() >= 0
    await provider.release(vm)
