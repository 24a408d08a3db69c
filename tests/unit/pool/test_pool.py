from __future__ import annotations

import asyncio

import pytest

from cloche.errors import ProviderError
from cloche.pool import PoolStats, VmPool
from cloche.vm.fake import FakeProvider
from cloche.vm.provider import Vm, VmSpec


async def never(*_arguments: object) -> None:
    await asyncio.Event().wait()


async def test_vms_are_made_when_asked_for_and_gone_when_given_back() -> None:
    async with VmPool(FakeProvider()) as pool:
        first, second = await pool.allocate(VmSpec()), await pool.allocate(VmSpec())
        assert first.vm.id != second.vm.id
        assert pool.stats == PoolStats(allocated=2, released=0, active=2)
        await pool.release(first.vm)
        await pool.release(first.vm)
        assert pool.stats == PoolStats(allocated=2, released=1, active=1)
        assert await second.vm.guest.ping() == 0
    assert pool.stats == PoolStats(allocated=2, released=2, active=0)


async def test_a_provider_that_takes_too_long() -> None:
    async with VmPool(FakeProvider(on_allocate=never), allocation_timeout=0.01) as pool:
        with pytest.raises(ProviderError, match=r"the fake provider had no VM ready after 0\.01 s") as caught:
            await pool.allocate(VmSpec())
        assert caught.value.hint is not None
        assert pool.stats == PoolStats(allocated=0, released=0, active=0)


async def test_what_the_provider_says_comes_through() -> None:
    async def broken(_spec: VmSpec, number: int) -> None:
        if number == 1:
            raise ProviderError("no room")

    async with VmPool(FakeProvider(on_allocate=broken)) as pool:
        with pytest.raises(ProviderError, match="no room"):
            await pool.allocate(VmSpec())
        assert (await pool.allocate(VmSpec())).vm.provider == "fake"


class Slow(FakeProvider):
    """Ends a VM only when told."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.ended: list[str] = []

    async def release(self, vm: Vm) -> None:
        await self.go.wait()
        self.ended.append(vm.id)
        await super().release(vm)


async def test_a_release_goes_on_when_its_caller_is_cancelled() -> None:
    provider = Slow()
    pool = VmPool(provider)
    vm = (await pool.allocate(VmSpec())).vm
    releasing = asyncio.create_task(pool.release(vm))
    await asyncio.sleep(0)
    releasing.cancel()
    await asyncio.sleep(0)
    provider.go.set()
    with pytest.raises(asyncio.CancelledError):
        await releasing
    assert provider.ended == [vm.id]
    await pool.close()


async def test_a_release_that_takes_too_long_is_told() -> None:
    provider = Slow()
    pool = VmPool(provider, release_timeout=0.01)
    vm = (await pool.allocate(VmSpec())).vm
    with pytest.raises(ProviderError, match=f"VM {vm.id} did not end within") as caught:
        await pool.release(vm)
    assert caught.value.hint is not None
    provider.go.set()
    await pool.close()


async def test_closing_releases_all_the_others_too() -> None:
    class Broken(FakeProvider):
        async def release(self, vm: Vm) -> None:
            await super().release(vm)
            if vm.id == first.id:
                raise ProviderError("would not go")

    pool = VmPool(Broken())
    first = (await pool.allocate(VmSpec())).vm
    second = (await pool.allocate(VmSpec())).vm
    with pytest.raises(ProviderError, match="would not go"):
        await pool.close()
    assert pool.stats.active == 0
    with pytest.raises(Exception, match="released"):
        await second.guest.ping()
