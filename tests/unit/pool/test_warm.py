"""The pool that has VMs ready, over a provider that does as told, in time that passes at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from cloche.config import PoolSettings
from cloche.errors import GuestError, GuestLost, ImageError, ProviderError, UsageError
from cloche.pool import VmPool
from cloche.pool.events import (
    AllocationFailed,
    MakingFailed,
    VmEnded,
    VmHandedOut,
    VmMade,
    VmReleased,
    VmReset,
)
from cloche.vm.provider import VmSpec

from .places import ToldProvider, in_virtual_time, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cloche.pool import PoolEvent
    from cloche.vm.provider import Vm

SPEC = VmSpec()
OTHER = VmSpec(cpus=8)


class Place:
    """A pool, its provider, and what it told."""

    def __init__(self, **settings: Any) -> None:
        self.provider = ToldProvider()
        self.told: list[PoolEvent] = []
        self.pool = VmPool(
            self.provider, settings=PoolSettings(**settings), observer=self.told.append, release_timeout=5.0
        )

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.told if type(event) is kind]

    @property
    def why(self) -> list[str]:
        return [event.why for event in self.of(VmEnded)]

    @property
    def counts(self) -> tuple[int, int]:
        """Active and idle."""
        stats = self.pool.stats
        return stats.active, stats.idle

    async def take(self, spec: VmSpec = SPEC) -> Vm:
        return (await self.pool.allocate(spec)).vm


@contextlib.asynccontextmanager
async def warm(*specs: VmSpec, **settings: Any) -> AsyncIterator[Place]:
    """A pool at its target."""
    place = Place(**settings)
    async with place.pool:
        await place.pool.warm(specs or [SPEC])
        await place.pool.at_target()
        yield place
    assert place.provider.alive == []
    assert place.provider.most <= PoolSettings(**settings).max


# Handing out


@in_virtual_time
async def test_a_warm_vm_is_there_at_once_and_the_next_a_moment_later() -> None:
    async with warm() as place:
        assert place.counts == (0, 1)
        started = asyncio.get_running_loop().time()
        allocation = await place.pool.allocate(SPEC)
        assert asyncio.get_running_loop().time() == started
        assert allocation.source == "warm"
        assert allocation.vm.guest.info.hostname == allocation.vm.id
        assert place.counts == (1, 0)
        await place.pool.at_target()
        assert place.counts == (1, 1)
        handed = place.of(VmHandedOut)[0]
        assert (handed.vm_id, handed.hit, handed.image) == (allocation.vm.id, True, "default")
        assert place.pool.stats.hits == 1
        assert place.pool.stats.misses == 0
        assert place.pool.stats.utilization == 0.5


@in_virtual_time
async def test_a_shape_nobody_warmed_is_made_when_asked_for() -> None:
    async with warm() as place:
        allocation = await place.pool.allocate(OTHER)
        assert allocation.source == "booted"
        assert place.pool.stats.misses == 1
        assert allocation.vm.guest.info.cpus == 8


@in_virtual_time
async def test_several_wanted_are_several_made() -> None:
    async with warm(SPEC, OTHER, target=2, max=4) as place:
        assert place.counts == (0, 4)
        assert len({event.vm_id for event in place.of(VmMade)}) == 4


@in_virtual_time
async def test_all_or_none() -> None:
    async with warm(SPEC, OTHER, max=3) as place:
        first = await place.pool.allocate_many([SPEC, OTHER])
        assert [one.vm.guest.info.cpus for one in first] == [SPEC.cpus, OTHER.cpus]
        with pytest.raises(ProviderError, match="no VM became free within 120 s; all 3"):
            await place.pool.allocate_many([SPEC, SPEC])
        assert place.pool.stats.active == 2
        assert [event.reason for event in place.of(AllocationFailed)] == ["timeout", "timeout"]
        with pytest.raises(UsageError, match="4 VMs were asked for at once; this pool has 3 at most"):
            await place.pool.allocate_many([SPEC] * 4)


@in_virtual_time
async def test_a_full_pool_serves_in_the_order_of_asking() -> None:
    async with warm(max=1) as place:
        first = await place.take()
        order: list[int] = []

        async def ask(number: int) -> None:
            vm = await place.take()
            order.append(number)
            await place.pool.release(vm)

        asking = [asyncio.create_task(ask(number)) for number in range(4)]
        await settle()
        await place.pool.release(first)
        await asyncio.gather(*asking)
        assert order == [0, 1, 2, 3]


@in_virtual_time
async def test_who_asks_for_many_is_not_passed_by_who_asks_for_one_later() -> None:
    async with warm(max=2, target=2) as place:
        first, second = await place.take(), await place.take()
        many = asyncio.create_task(place.pool.allocate_many([SPEC, SPEC]))
        await settle()
        one = asyncio.create_task(place.take())
        await place.pool.release(first)
        await asyncio.sleep(1)
        assert not one.done()
        await place.pool.release(second)
        for allocation in await many:
            await place.pool.release(allocation.vm)
        await one


@in_virtual_time
async def test_a_full_pool_makes_room_where_nobody_waits() -> None:
    async with warm(SPEC, max=1) as place:
        vm = await place.take(OTHER)
        assert vm.guest.info.cpus == 8
        assert place.why == ["surplus"]


@in_virtual_time
async def test_who_stops_waiting_takes_nothing_along() -> None:
    async with warm(max=1) as place:
        vm = await place.take()
        asking = asyncio.create_task(place.take())
        await settle()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await place.pool.release(vm)
        await place.pool.at_target()
        assert place.counts == (0, 1)
        assert [event.reason for event in place.of(AllocationFailed)] == ["cancelled"]


@in_virtual_time
async def test_who_is_cancelled_in_the_moment_of_getting_one_gives_it_back() -> None:
    async with warm() as place:
        asking = asyncio.create_task(place.take())
        await asyncio.sleep(0)  # it was handed over, and is not yet back with its caller
        assert place.counts == (1, 0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert place.counts == (0, 1)


# Coming back


@in_virtual_time
async def test_a_vm_that_comes_back_keeps_its_id_and_nothing_else() -> None:
    async with warm(max=1) as place:
        first = await place.take()
        old = first.guest
        await place.pool.release(first)
        assert place.pool.stats.resetting == 1
        second = await place.take()
        assert second.id == first.id
        assert second.guest.info.boot_id != old.info.boot_id
        assert len(place.of(VmReset)) == 1
        with pytest.raises(GuestError):
            await first.guest.ping()  # what its former holder has leads nowhere
        await place.pool.release(first)
        await place.pool.release(first)
        assert place.pool.stats.active == 1
        assert [event.vm_id for event in place.of(VmReleased)] == [first.id]
        assert place.pool.stats.released == 1


@pytest.mark.parametrize(
    ("how", "why", "words"),
    [
        ("fail", "reset failed", "QEMU did not start"),
        ("hang", "reset failed", "TimeoutError"),
        ("dirty", "dirty", "files: 'mine' should not be there"),
        ("nothing", "lost", "fake lose"),
        ("mute", "unhealthy", "did not say within 15 s"),
        ("name", "dirty", "it calls itself 'another'"),
    ],
)
@in_virtual_time
async def test_a_vm_that_is_not_surely_clean_is_replaced(
    how: str, why: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with warm(max=2) as place:
        vm = await place.take()
        place.provider.resetting.append(how)
        guest: Any = vm.guest
        guest.left = ("mine",)
        if how == "nothing":
            guest.lose(GuestLost("as `fake lose` asked"))
        with caplog.at_level(logging.WARNING):
            await place.pool.release(vm)
            await asyncio.sleep(100)
        (ended,) = place.of(VmEnded)
        assert (ended.vm_id, ended.why) == (vm.id, why)
        assert words in ended.detail
        assert vm.id in caplog.text
        assert place.counts == (0, 1)
        assert (await place.take()).id != vm.id


@in_virtual_time
async def test_a_provider_that_only_pretends_to_reset_is_found_out() -> None:
    async with warm(max=2) as place:
        vm = await place.take()
        place.provider.resetting.append("nothing")
        await place.pool.release(vm)
        await asyncio.sleep(5)
        (ended,) = place.of(VmEnded)
        assert ended.why == "dirty"
        assert "boot id" in ended.detail


@in_virtual_time
async def test_a_slow_answer_in_time_is_good_enough() -> None:
    async with warm(max=1) as place:
        vm = await place.take()
        place.provider.resetting.append("slow")
        await place.pool.release(vm)
        assert (await place.take()).id == vm.id


@in_virtual_time
async def test_a_vm_used_often_enough_is_replaced() -> None:
    async with warm(max=1, max_uses=2) as place:
        ids = []
        for _ in range(5):
            vm = await place.take()
            ids.append(vm.id)
            await place.pool.release(vm)
        assert ids[0] == ids[1] != ids[2] == ids[3] != ids[4]
        assert place.why == ["uses", "uses"]


# Waiting


@in_virtual_time
async def test_a_vm_too_old_is_replaced_while_it_waits() -> None:
    async with warm(max_age=100.0, health_interval=10.0) as place:
        (old,) = place.provider.alive
        await asyncio.sleep(120)
        assert place.why == ["age"]
        assert place.counts == (0, 1)
        assert (await place.take()).id != old.id


@in_virtual_time
async def test_a_vm_that_dies_while_it_waits_is_replaced_at_once() -> None:
    async with warm(health_interval=1000.0) as place:
        (vm,) = place.provider.alive
        vm.guest.lose(GuestLost("QEMU was killed"))
        await settle()
        assert place.counts == (0, 0)
        await place.pool.at_target()
        (ended,) = place.of(VmEnded)
        assert (ended.vm_id, ended.why, ended.detail) == (vm.id, "lost", "QEMU was killed")


@in_virtual_time
async def test_a_vm_that_falls_silent_is_replaced_and_one_in_use_left_alone() -> None:
    async with warm(health_interval=10.0) as place:
        used: Any = await place.take()
        await place.pool.at_target()
        for vm in place.provider.alive:
            vm.guest.silent = True
        await asyncio.sleep(30)
        assert place.why == ["unhealthy"]
        assert used.id in [vm.id for vm in place.provider.alive]


@in_virtual_time
async def test_more_than_wanted_wait_only_a_while() -> None:
    async with warm(health_interval=10.0) as place:
        vms = [await place.take() for _ in range(4)]
        for vm in vms:
            await place.pool.release(vm)
        await asyncio.sleep(20)
        assert place.counts in {(0, 4), (0, 5)}
        await asyncio.sleep(100)
        assert place.counts == (0, 1)
        assert set(place.why) == {"surplus"}


@in_virtual_time
async def test_min_stays_however_long_nobody_asks() -> None:
    async with warm(SPEC, target=3, min=1, max_age=1000.0, health_interval=10.0) as place:
        await place.take(OTHER)
        await asyncio.sleep(500)
        assert place.counts == (1, 6)
        await asyncio.sleep(2000)
        assert place.counts == (1, 1)


# Making


@in_virtual_time
async def test_refilling_backs_off_and_goes_on() -> None:
    async with warm(max=4) as place:
        place.provider.failures = 6
        vm = await place.take()
        await asyncio.sleep(4)
        failed = len(place.of(MakingFailed))
        assert 2 <= failed <= 4
        await asyncio.sleep(100)
        assert len(place.of(MakingFailed)) == 6
        assert place.of(MakingFailed)[0].error == "no room on this machine"
        assert place.counts == (1, 1)
        await place.pool.release(vm)


@in_virtual_time
async def test_who_waits_gets_another_attempt_and_then_the_reason() -> None:
    async with warm(target=0, min=0) as place:
        place.provider.failures = 1
        vm = await place.take()
        assert vm.provider == "fake"
        place.provider.failures = 2
        with pytest.raises(ProviderError, match="no room on this machine"):
            await place.take()
        assert [event.reason for event in place.of(AllocationFailed)] == ["provider"]
        await place.take()


@in_virtual_time
async def test_an_image_that_is_not_there_is_told_at_once() -> None:
    class Imageless(ToldProvider):
        async def allocate(self, spec: VmSpec) -> Any:
            raise ImageError(f"there is no image {spec.image!r}")

    async with VmPool(Imageless(), settings=PoolSettings()) as pool:
        await pool.warm([SPEC])
        with pytest.raises(ImageError, match="no image 'default'"):
            await pool.at_target()
        with pytest.raises(ImageError, match="no image 'default'"):
            await pool.allocate(SPEC)


@in_virtual_time
async def test_a_provider_that_hangs_is_told_of_when_time_is_up() -> None:
    async with warm(target=0, min=0, allocation_timeout=5.0) as place:
        place.provider.makes_in = 1e6
        with pytest.raises(ProviderError, match="the fake provider had no VM ready after 5 s"):
            await place.take()


@in_virtual_time
async def test_a_new_vm_is_checked_too() -> None:
    class Late(ToldProvider):
        def _guest(self, *arguments: Any) -> Any:
            guest: Any = super()._guest(*arguments)
            guest.clock_off = 60.0 if self.made == 1 else 0.0
            return guest

    told: list[PoolEvent] = []
    async with VmPool(Late(), settings=PoolSettings(), observer=told.append) as pool:
        assert (await pool.allocate(SPEC)).vm
        await settle()
        assert [event.why for event in told if isinstance(event, VmEnded)] == ["dirty"]


@in_virtual_time
async def test_vms_that_die_before_they_are_anybodys_are_no_vms() -> None:
    class Stillborn(ToldProvider):
        async def allocate(self, spec: VmSpec) -> Any:
            allocation = await super().allocate(spec)
            guest: Any = allocation.vm.guest
            guest.lose(GuestLost("QEMU was killed"))
            return allocation

    async with VmPool(Stillborn(), settings=PoolSettings(target=0, min=0)) as pool:
        with pytest.raises(ProviderError, match="the VM that was made is not fit: QEMU was killed"):
            await pool.allocate(SPEC)


@in_virtual_time
async def test_an_observer_that_fails_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def observe(_event: object) -> None:
        raise RuntimeError("the metrics are broken")

    async with VmPool(ToldProvider(), settings=PoolSettings(), observer=observe) as pool:
        await pool.release((await pool.allocate(SPEC)).vm)
        assert pool.stats.released == 1
    assert "the metrics are broken" in caplog.text


# The end


@in_virtual_time
async def test_closing_ends_every_vm_whatever_it_is_at() -> None:
    place = Place(max=3, target=1)
    await place.pool.warm([SPEC])
    await place.pool.at_target()
    await place.take()
    resetting, waiting = await place.take(), asyncio.create_task(place.pool.allocate_many([SPEC] * 3))
    await settle()
    await place.pool.release(resetting)
    await settle()
    await place.pool.close()
    with pytest.raises(ProviderError, match="being closed"):
        await waiting
    assert place.provider.alive == []
    assert place.pool.stats.alive == 0
    with pytest.raises(ProviderError, match="being closed"):
        await place.take()
    with pytest.raises(ProviderError, match="being closed"):
        await place.pool.at_target()


@in_virtual_time
async def test_what_comes_back_while_the_pool_closes_is_only_ended() -> None:
    class Slow(ToldProvider):
        async def release(self, vm: Vm) -> None:
            await asyncio.sleep(1)
            await super().release(vm)

    provider = Slow()
    pool = VmPool(provider, settings=PoolSettings())
    vm = (await pool.allocate(SPEC)).vm
    asking = asyncio.create_task(pool.allocate(SPEC))
    await pool.at_target()
    closing = asyncio.create_task(pool.close())
    await settle()
    await pool.release(vm)
    asking.cancel()
    await closing
    assert provider.alive == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with contextlib.suppress(asyncio.CancelledError):
        await asking


@in_virtual_time
async def test_a_vm_that_does_not_end_is_told_of_when_closing() -> None:
    class Stubborn(ToldProvider):
        async def release(self, vm: Vm) -> None:
            await asyncio.sleep(10)
            await super().release(vm)

    pool = VmPool(Stubborn(), settings=PoolSettings(), release_timeout=1.0)
    await pool.allocate(SPEC)
    with pytest.raises(ProviderError, match="did not end within 1 s"):
        await pool.close()


@pytest.mark.parametrize("name", ["min", "target"])
def test_settings_that_contradict_each_other(name: str) -> None:
    settings: Any = {name: 3, "max": 2}
    with pytest.raises(UsageError, match=rf"\[pool\] {name} is 3, more than \[pool\] max, which is 2"):
        VmPool(ToldProvider(), settings=PoolSettings(**settings))


# On demand


async def test_a_pool_without_settings_has_nothing_to_warm() -> None:
    async with VmPool(ToldProvider()) as pool:
        with pytest.raises(ValueError, match="on demand"):
            await pool.warm([SPEC])


@in_virtual_time
async def test_all_or_none_on_demand() -> None:
    provider, told = ToldProvider(), list[Any]()
    async with VmPool(provider, observer=told.append) as pool:
        both = await pool.allocate_many([SPEC, OTHER])
        assert [one.vm.guest.info.cpus for one in both] == [2, 8]
        provider.failures = 1
        with pytest.raises(ProviderError, match="no room"):
            await pool.allocate_many([SPEC, OTHER])
        assert pool.stats.active == len(provider.alive) == 2
        assert not any(event.hit for event in told if isinstance(event, VmHandedOut))
