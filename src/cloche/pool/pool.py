"""The pool: the one place that asks a provider for VMs."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from cloche.errors import ProviderError
from cloche.pool.events import AllocationFailed, PoolStats, VmEnded, VmHandedOut, VmReleased
from cloche.pool.failures import did_not_end, reason_of
from cloche.pool.member import State
from cloche.tasks import finish

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from cloche.config import PoolSettings
    from cloche.pool.events import Observer, PoolEvent
    from cloche.pool.stock import Stock
    from cloche.vm.provider import Allocation, Vm, VmProvider, VmSpec
    from cloche.vm.snapshot import SnapshotProvider, VmSnapshot

ALLOCATION_TIMEOUT = 120.0
"""Seconds a provider has to make a VM, unless told otherwise."""
RELEASE_TIMEOUT = 30.0
"""Seconds a provider has to end a VM."""

_log = logging.getLogger(__name__)


class VmPool:
    """Hands out VMs and takes them back.

    Without ``settings`` each is made when asked for and destroyed when given back. With them VMs of the shapes
    that were asked for are ready before the next caller is, and one given back is reset, checked and offered
    again: ``warm`` begins with shapes nobody has asked for yet. ``observer`` is told what happens.

    An async context manager: leaving it releases every VM and closes the provider. UsageError for settings that
    contradict each other or name no strategy.
    """

    def __init__(
        self,
        provider: VmProvider,
        *,
        settings: PoolSettings | None = None,
        observer: Observer | None = None,
        allocation_timeout: float = ALLOCATION_TIMEOUT,
        release_timeout: float = RELEASE_TIMEOUT,
    ) -> None:
        """``allocation_timeout`` is for a pool without ``settings``, which have their own. Both are seconds."""
        self._provider = provider
        self._observer = observer
        self._allocation_timeout = allocation_timeout
        self._release_timeout = release_timeout
        self._stock = self._make_stock(settings) if settings else None
        self._active: dict[str, Vm] = {}
        self._allocated = 0
        self._released = 0
        self._hits = 0

    def _make_stock(self, settings: PoolSettings) -> Stock:
        from cloche.pool.stock import Stock  # not what a plain run has to import

        return Stock(self._provider, settings, self._tell, self._release_timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self._provider.name

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about its VMs."""
        return self._provider.notes

    @property
    def stats(self) -> PoolStats:
        """The counts so far."""
        if self._stock is None:
            return PoolStats(self._allocated, self._released, len(self._active))
        count = self._stock.count
        return PoolStats(
            allocated=self._allocated,
            released=self._released,
            active=count(State.ACTIVE),
            idle=count(State.IDLE),
            resetting=count(State.RESETTING),
            making=count(State.MAKING),
            ending=count(State.ENDING),
            hits=self._hits,
        )

    def _tell(self, event: PoolEvent) -> None:
        match event:
            case VmHandedOut(hit=hit):
                self._allocated += 1
                self._hits += hit
            case VmReleased():
                self._released += 1
        if self._observer is not None:
            try:
                self._observer(event)
            except Exception:  # noqa: BLE001 - whoever counts must not stop what is counted
                _log.exception("the pool's observer failed")

    async def warm(self, specs: Sequence[VmSpec]) -> None:
        """Have VMs of these shapes ready from now on. Needs ``settings``; does not wait: see ``at_target``."""
        self._warm_half().keep(specs)

    async def at_target(self) -> None:
        """Wait until as many VMs are ready as are wanted, or as the pool may have.

        Raises what making one raises meanwhile (the pool goes on trying), ProviderError when it is closed.
        """
        await self._warm_half().at_target()

    def _warm_half(self) -> Stock:
        if self._stock is None:
            raise ValueError("a pool without settings makes its VMs on demand")
        return self._stock

    async def allocate(self, spec: VmSpec) -> Allocation:
        """Hand out a VM of this shape.

        Raises ProviderError when there is none within the allocation deadline, and what the provider raises.
        """
        if self._stock is None:
            return await self._allocate_new(spec)
        (allocation,) = await self._stock.allocate([spec])
        return allocation

    async def allocate_many(self, specs: Sequence[VmSpec]) -> list[Allocation]:
        """Hand out a VM of each of these shapes, in their order: all of them, or none.

        Raises as ``allocate``, and UsageError for more than the pool may have.
        """
        if self._stock is not None:
            return await self._stock.allocate(specs)
        making = [asyncio.create_task(self._allocate_new(spec)) for spec in specs]
        try:
            return list(await asyncio.gather(*making))
        except BaseException:
            for one in making:
                one.cancel()
            results = await finish(asyncio.gather(*making, return_exceptions=True))
            made = [result for result in results if not isinstance(result, BaseException)]
            await finish(asyncio.gather(*(self.release(one.vm) for one in made), return_exceptions=True))
            raise

    async def resume(self, snapshot: VmSnapshot) -> Allocation:
        """Hand out a VM made of a snapshot; it is of nobody else's use, and ended when it is given back.

        Raises as ``allocate``, and ProviderError for a provider that takes no snapshots.
        """
        provider = self._snapshots()
        return await self._made(snapshot.spec, lambda: provider.resume(snapshot))

    async def snapshot(self, vm: Vm, folder: Path, number: int | None = None) -> VmSnapshot:
        """Keep what a VM is now in ``folder``; see SnapshotProvider. ProviderError for one that is not handed out."""
        self._check_held(vm)
        return await self._snapshots().snapshot(vm, folder, number)

    async def restore(self, vm: Vm, snapshot: VmSnapshot) -> None:
        """Put a VM that is handed out back to a snapshot of it; ``vm.guest`` is another then. ProviderError."""
        self._check_held(vm)
        await self._snapshots().restore(vm, snapshot)
        if self._stock is not None:
            self._stock.renew(vm)

    def _snapshots(self) -> SnapshotProvider:
        from cloche.vm.snapshot import snapshots_of  # not what a plain run has to import

        return snapshots_of(self._provider)

    def _check_held(self, vm: Vm) -> None:
        if vm.id not in self._active and not (self._stock and self._stock.holds(vm)):
            raise ProviderError(f"VM {vm.id} has been given back")

    async def _allocate_new(self, spec: VmSpec) -> Allocation:
        return await self._made(spec, lambda: self._provider.allocate(spec))

    async def _made(self, spec: VmSpec, make: Callable[[], Awaitable[Allocation]]) -> Allocation:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._allocation_timeout):
                allocation = await make()
        except BaseException as error:
            took = time.perf_counter() - started
            self._tell(AllocationFailed(self.provider, spec.image, reason_of(error), took))
            if not isinstance(error, TimeoutError):
                raise
            raise ProviderError(
                f"the {self.provider} provider had no VM ready after {self._allocation_timeout:g} s",
                hint="`cloche doctor` says what this machine can do",
            ) from error
        vm = allocation.vm
        self._active[vm.id] = vm
        self._tell(
            VmHandedOut(vm.id, self.provider, spec.image, allocation.source, allocation.duration, hit=False)
        )
        return allocation

    async def release(self, vm: Vm, *, recycle: bool = True) -> None:
        """Take a VM back; one that is already back is left alone. Goes on when the caller is cancelled.

        Raises ProviderError when the provider does not end it within the release deadline. With ``settings``
        nothing is waited for: the VM is reset, or replaced, in the background. Without ``recycle`` it is ended:
        its id is free for what was kept of it.
        """
        if self._stock is not None and (self._stock.release(vm) if recycle else await self._stock.retire(vm)):
            return
        if self._active.pop(vm.id, None) is not None:
            self._tell(VmReleased(vm.id, self.provider))
            await finish(self._end(vm))

    async def _end(self, vm: Vm) -> None:
        try:
            async with asyncio.timeout(self._release_timeout):
                await self._provider.release(vm)
        except TimeoutError as late:
            raise did_not_end(vm, self._release_timeout) from late
        self._tell(VmEnded(vm.id, self.provider, "released"))

    async def close(self) -> None:
        """Release every VM and close the provider, whatever one of them raises."""
        vms = list(self._active.values())
        work = [self.release(vm) for vm in vms]
        if self._stock is not None:
            work.append(self._stock.close())
        results = await finish(asyncio.gather(*work, return_exceptions=True))
        await finish(self._provider.close())
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise failures[0]
