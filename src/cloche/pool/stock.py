"""The pool that has VMs ready: who gets which, and how many there are to be.

Everything that changes who has which VM happens between two awaits, in one event loop: ``look_again`` looks at
what there is and at what is wanted, serves who waits in the order they came, and starts what is missing. What
takes time (making, resetting, ending, minding) runs in the workshop's tasks, which end in another look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from cloche.errors import GuestError, ProviderError, UsageError
from cloche.pool.events import AllocationFailed, MakingFailed, VmHandedOut, VmReleased
from cloche.pool.failures import closed, reason_of, words
from cloche.pool.member import HeldVm, Member, State
from cloche.pool.shelf import Shelf
from cloche.pool.strategies import find_strategy
from cloche.pool.workshop import Workshop
from cloche.tasks import finish
from cloche.vm.provider import Allocation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloche.config import PoolSettings
    from cloche.pool.events import PoolEvent
    from cloche.vm.provider import Source, Vm, VmProvider, VmSpec

REFILL_DELAY = 0.5
"""Seconds after handing a VM out that its place stays empty: the caller's work goes first on a small machine."""
ATTEMPTS = 2
"""VMs that may fail to be made while a caller waits, before it is told."""

_log = logging.getLogger(__name__)


class _Waiter:
    """A caller who wants VMs, all of them or none."""

    def __init__(self, needs: Counter[Shelf]) -> None:
        self.needs = needs
        self.future: asyncio.Future[list[Member]] = asyncio.get_running_loop().create_future()
        self.failures = 0


class Stock:
    """See VmPool, whose warm half this is. ``tell`` hears what happens; it must not raise."""

    def __init__(
        self,
        provider: VmProvider,
        settings: PoolSettings,
        tell: Callable[[PoolEvent], None],
        release_timeout: float,
    ) -> None:
        """UsageError for settings that contradict each other, or name no strategy."""
        for name, value in (("min", settings.min), ("target", settings.target)):
            if value > settings.max:
                raise UsageError(f"[pool] {name} is {value}, more than [pool] max, which is {settings.max}")
        self._provider = provider
        self._settings = settings
        self._tell = tell
        self._make_strategy = find_strategy(settings.strategy)
        self._workshop = Workshop(provider, settings, tell, release_timeout, self)
        self._shelves: dict[VmSpec, Shelf] = {}
        self._waiters: deque[_Waiter] = deque()
        self._watchers: set[asyncio.Future[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    # --- what callers ask for

    def count(self, state: State) -> int:
        """How many VMs are in a state."""
        return sum(shelf.count(state) for shelf in self._shelves.values())

    @property
    def _alive(self) -> int:
        return sum(shelf.alive for shelf in self._shelves.values())

    def _members(self) -> list[Member]:
        return [member for shelf in self._shelves.values() for member in shelf.members.values()]

    def keep(self, specs: Sequence[VmSpec]) -> None:
        """Have VMs of these shapes ready from now on."""
        for spec in specs:
            self._shelf(spec).kept = True
        self.look_again()

    async def at_target(self) -> None:
        """Wait until as many VMs are ready as are wanted, or as ``max`` allows.

        Raises what making one raises meanwhile (the pool goes on trying), ProviderError when it is closed.
        """
        while self._closing or not self._is_at_target():
            if self._closing:
                raise closed()
            watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watchers.add(watcher)
            try:
                await watcher
            finally:
                self._watchers.discard(watcher)

    def _is_at_target(self) -> bool:
        now = _now()
        is_full = self._alive >= self._settings.max
        for shelf in self._shelves.values():
            ready = shelf.count(State.IDLE)
            if ready < shelf.wanted(now) and (not is_full or shelf.coming > ready):
                return False
        return not self.count(State.ENDING)

    async def allocate(self, specs: Sequence[VmSpec]) -> list[Allocation]:
        """Hand out a VM of each shape, all of them or none; see VmPool.allocate_many."""
        started = time.perf_counter()
        waiter = self._wait_for(specs)
        hit = waiter.future.done()
        try:
            async with asyncio.timeout(self._settings.allocation_timeout):
                members = await waiter.future
                for member in members:
                    await self._workshop.leave_alone(member)
        except BaseException as error:
            self._withdraw(waiter)
            took = time.perf_counter() - started
            for spec in specs:
                self._tell(AllocationFailed(self._provider.name, spec.image, reason_of(error), took))
            if isinstance(error, TimeoutError):
                raise self._nothing_free() from error
            raise
        took = time.perf_counter() - started
        return [self._hand_over(member, took, hit=hit) for member in _in_order(members, specs)]

    def _wait_for(self, specs: Sequence[VmSpec]) -> _Waiter:
        if self._closing:
            raise closed()
        if len(specs) > self._settings.max:
            raise UsageError(
                f"{len(specs)} VMs were asked for at once; this pool has {self._settings.max} at most",
                hint="[pool] max",
            )
        now = _now()
        waiter = _Waiter(Counter(map(self._shelf, specs)))
        for shelf in waiter.needs:
            shelf.asked_at = now
        self._waiters.append(waiter)
        self.look_again()
        return waiter

    def _withdraw(self, waiter: _Waiter) -> None:
        """The caller is gone: what was meant for it is as good as before."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        future = waiter.future
        if future.done() and not future.cancelled() and future.exception() is None:
            for member in future.result():
                self._workshop.offer(member)
        self.look_again()

    def _nothing_free(self) -> ProviderError:
        waited, settings = f"{self._settings.allocation_timeout:g} s", self._settings
        if self._alive < settings.max:
            return ProviderError(
                f"the {self._provider.name} provider had no VM ready after {waited}",
                hint="`cloche doctor` says what this machine can do",
            )
        return ProviderError(
            f"no VM became free within {waited}; all {settings.max} of this pool are in use",
            hint="[pool] max allows more, [pool] allocation_timeout waits longer",
        )

    def _hand_over(self, member: Member, took: float, *, hit: bool) -> Allocation:
        source: Source = "warm" if hit or member.uses else member.source
        member.holder = HeldVm(member.vm)
        name = self._provider.name
        self._tell(VmHandedOut(member.id, name, member.shelf.spec.image, source, took, hit))
        return Allocation(member.holder, took, source)

    def release(self, vm: Vm) -> bool:
        """Take a VM back, and recycle it in the background; false for one that is not out with this holder."""
        member = self._taken_back(vm)
        if member is not None:
            self._workshop.recycle(member)
        return member is not None

    async def retire(self, vm: Vm) -> bool:
        """Take a VM back and end it; false as ``release``. It has ended when this returns."""
        member = self._taken_back(vm)
        if member is not None and not self._closing:
            await finish(self._workshop.retire(member, "released"))
        return member is not None

    def _taken_back(self, vm: Vm) -> Member | None:
        member = self._held(vm)
        if member is not None:
            member.holder = None
            member.uses += 1
            member.last_used = _now()
            member.state = State.RESETTING
            self._tell(VmReleased(member.id, self._provider.name))
        return member

    def holds(self, vm: Vm) -> bool:
        """Whether a VM is out with this holder."""
        return self._held(vm) is not None

    def renew(self, vm: Vm) -> None:
        """The VM was put back to a snapshot: its holder goes on with the guest it has now."""
        member = self._held(vm)
        if member is not None and member.holder is not None:
            member.holder.guest = member.vm.guest

    def _held(self, vm: Vm) -> Member | None:
        found = (shelf.members.get(vm.id) for shelf in self._shelves.values())
        return next((member for member in found if member is not None and member.holder is vm), None)

    # --- balance: what there is, and what is wanted

    def _shelf(self, spec: VmSpec) -> Shelf:
        if spec not in self._shelves:
            self._shelves[spec] = Shelf(spec, self._settings, self._make_strategy(), _now())
        return self._shelves[spec]

    def look_again(self) -> None:
        """Look at what there is and what is wanted: serve who waits, make what is missing, as far as ``max`` allows."""
        if self._closing:
            return
        promised = self._serve()
        self._make_missing(promised)
        self._refill(promised)
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_result(None)

    def _serve(self) -> Counter[Shelf]:
        """Hand ready VMs to those who wait, first come first served; how many the others still wait for."""
        promised: Counter[Shelf] = Counter()
        for waiter in list(self._waiters):
            if waiter.future.done():
                self._waiters.remove(waiter)
            elif all(
                shelf.count(State.IDLE) - promised[shelf] >= number for shelf, number in waiter.needs.items()
            ):
                self._waiters.remove(waiter)
                waiter.future.set_result([self._take(shelf) for shelf in waiter.needs.elements()])
            else:
                promised += waiter.needs
        return promised

    def _take(self, shelf: Shelf) -> Member:
        member = shelf.choose()
        member.state = State.ACTIVE
        if member.minder is not None:
            member.minder.cancel()
        shelf.not_before = max(shelf.not_before, _now() + REFILL_DELAY)
        return member

    def _make_missing(self, promised: Counter[Shelf]) -> None:
        """Make what callers wait for; where there is no room, a VM that nobody waits for makes some."""
        missing = [shelf for shelf, number in promised.items() for _ in range(number - shelf.coming)]
        room = self._settings.max - self._alive
        for shelf in missing[: max(room, 0)]:
            self._workshop.start_making(shelf)
        lacking = len(missing) - max(room, 0) - self.count(State.ENDING)
        for member in self._dispensable(promised)[: max(lacking, 0)]:
            self._workshop.retire(member, "surplus")

    def _dispensable(self, promised: Counter[Shelf]) -> list[Member]:
        """Ready VMs that nobody waits for, those first that have waited longest."""
        spare = [
            member for shelf in self._shelves.values() for member in shelf.idle[: _excess(shelf, promised)]
        ]
        return sorted(spare, key=lambda member: member.idle_since)

    def _refill(self, promised: Counter[Shelf]) -> None:
        now = _now()
        later = []
        for spec, shelf in list(self._shelves.items()):
            wanted = shelf.wanted(now) + promised[shelf]
            short = min(wanted - shelf.coming, self._settings.max - self._alive)
            if short > 0 and shelf.not_before > now:
                later.append(shelf.not_before)
            elif short > 0:
                for _ in range(short):
                    self._workshop.start_making(shelf)
            elif not wanted and not shelf.kept and not shelf.alive:
                del self._shelves[spec]
        self._look_again_at(min(later, default=None))

    def _look_again_at(self, moment: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if moment is None else asyncio.get_running_loop().call_at(moment, self.look_again)

    # --- what the workshop tells

    def is_waited_for(self, shelf: Shelf) -> bool:
        """Whether a caller waits for a VM of this shelf."""
        return any(shelf in waiter.needs for waiter in self._waiters)

    def failed(self, shelf: Shelf, error: Exception, took: float) -> None:
        """A VM could not be made: whoever came first waits for one attempt more, refilling for a while."""
        pause = shelf.failed(_now())
        name, image = self._provider.name, shelf.spec.image
        if isinstance(error, TimeoutError):
            error = self._nothing_free()
        elif isinstance(error, GuestError):
            error = ProviderError(f"the VM that was made is not fit: {error.message}", hint="cloche doctor")
        _log.warning("no VM for the pool (next in %g s): %s", pause, words(error))
        self._tell(MakingFailed(name, image, words(error), took))
        for waiter in self._waiters:
            if shelf in waiter.needs and not waiter.future.done():
                waiter.failures += 1
                if waiter.failures >= ATTEMPTS or not isinstance(error, ProviderError):
                    waiter.future.set_exception(error)
                break
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_exception(error)
        self.look_again()

    async def close(self) -> None:
        """End every VM, whatever it is at, and tell whoever waits. Raises what ending one raises, once all have."""
        self._closing = True
        self._look_again_at(None)
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_exception(closed())
        for watcher in self._watchers:
            if not watcher.done():
                watcher.set_exception(closed())
        self._waiters.clear()
        try:
            await self._workshop.close(self._members)
        finally:
            self._shelves.clear()


def _in_order(members: Sequence[Member], specs: Sequence[VmSpec]) -> list[Member]:
    """A VM for each spec, in the order of the specs."""
    left = list(members)
    ordered = []
    for spec in specs:
        ordered.append(next(member for member in left if member.shelf.spec == spec))
        left.remove(ordered[-1])
    return ordered


def _excess(shelf: Shelf, promised: Counter[Shelf]) -> int:
    return max(shelf.count(State.IDLE) - promised[shelf], 0)


def _now() -> float:
    return asyncio.get_running_loop().time()
