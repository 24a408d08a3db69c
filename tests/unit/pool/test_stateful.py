"""The pool against a model, over a provider that fails in every way it can, in time that passes at once.

Whatever callers, guests and the provider do: no VM has two holders, none is handed out with anything in it of
its former holder's, there are never more than ``max``, and left alone the pool is soon back at its target.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloche.config import PoolSettings
from cloche.errors import ClocheError, GuestLost
from cloche.pool import VmPool
from cloche.vm.provider import Allocation, VmSpec

from .places import ToldProvider, VirtualLoop

SHAPES = (VmSpec(), VmSpec(cpus=8))
MAX = 4
STRATEGIES = (
    "first-available",
    "round-robin",
    "least-recently-used",
    "most-recently-used",
)  # those without chance
TIMES = st.sampled_from([0.0, 0.05, 0.2, 1.0, 20.0, 70.0, 1000.0])


class PoolMachine(RuleBasedStateMachine):
    """``held`` is what callers have, ``asking`` who waits; ``returned`` are handles given back."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.provider = ToldProvider()
        self.asking: list[asyncio.Task[list[Allocation]]] = []
        self.held: dict[str, Any] = {}
        self.returned: list[Any] = []
        self.boot_ids: set[str] = set()
        self.allocated = self.released = 0

    @initialize(strategy=st.sampled_from(STRATEGIES), aim=st.integers(0, 2), warm=st.booleans())
    def open(self, strategy: str, aim: int, *, warm: bool) -> None:
        self.configured = PoolSettings(
            max=MAX, target=aim, min=1, max_age=300.0, max_uses=3, health_interval=10.0,
            allocation_timeout=50.0, strategy=strategy,
        )  # fmt: skip
        self.pool = VmPool(self.provider, settings=self.configured, release_timeout=5.0)
        self.kept = SHAPES[:1] if warm else ()
        self.runner.run(self.pool.warm(self.kept))

    def run(self, seconds: float) -> None:
        """Let time pass, and take what was handed out meanwhile."""
        self.runner.run(asyncio.sleep(seconds))
        for task in [task for task in self.asking if task.done()]:
            self.asking.remove(task)
            with contextlib.suppress(ClocheError, asyncio.CancelledError):
                self.take(task.result())

    def take(self, allocations: list[Allocation]) -> None:
        for allocation in allocations:
            vm: Any = allocation.vm
            assert vm.id not in self.held, "a VM has two holders"
            assert vm.guest.left == (), "a dirty VM was handed out"
            assert vm.guest.info.hostname == vm.id
            assert vm.guest.info.boot_id not in self.boot_ids, "a guest was handed out twice"
            vm.guest.left = (f"of holder {self.allocated}",)
            self.boot_ids.add(vm.guest.info.boot_id)
            self.held[vm.id] = vm
            self.allocated += 1

    # --- what callers do

    @rule(shapes=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    def ask(self, shapes: list[VmSpec]) -> None:
        async def start() -> None:
            self.asking.append(asyncio.create_task(self.pool.allocate_many(shapes)))

        self.runner.run(start())

    @precondition(lambda self: self.asking)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.asking)).cancel()
        self.run(0)

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        how=st.sampled_from(["", "", "fail", "hang", "nothing", "dirty", "mute", "slow", "name"]),
    )
    def give_back(self, data: st.DataObject, how: str) -> None:
        vm = self.held.pop(data.draw(st.sampled_from(list(self.held))))
        self.provider.resetting = [how]
        self.runner.run(self.pool.release(vm))
        self.returned.append(vm)
        self.released += 1

    @precondition(lambda self: self.returned)
    @rule(data=st.data())
    def give_back_again(self, data: st.DataObject) -> None:
        self.runner.run(self.pool.release(data.draw(st.sampled_from(self.returned))))

    # --- what happens to them

    @precondition(lambda self: self.provider.alive)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.provider.alive)).guest.lose(GuestLost("QEMU was killed"))

    @precondition(lambda self: self.provider.alive)
    @rule(data=st.data())
    def fall_silent(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.provider.alive)).guest.silent = True

    @rule(number=st.integers(1, 5))
    def fail_to_make(self, number: int) -> None:
        self.provider.failures = number

    @rule(seconds=st.sampled_from([0.0, 0.1, 30.0, 100.0]))
    def make_slowly(self, seconds: float) -> None:
        self.provider.makes_in = seconds

    @rule(seconds=TIMES)
    def wait(self, seconds: float) -> None:
        self.run(seconds)

    # --- what always holds

    @invariant()
    def never_too_many(self) -> None:
        assert self.provider.most <= MAX

    @invariant()
    def counts_are_right(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.run(0)
        stats = self.pool.stats
        assert stats.active >= len(self.held)
        assert stats.alive <= MAX
        if not self.asking:
            assert stats.active == len(self.held)
            assert (stats.allocated, stats.released) == (self.allocated, self.released)

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            self.runner.close()
            return
        self.recover()
        self.runner.run(self.pool.close())
        assert self.provider.alive == []
        assert not asyncio.all_tasks(self.runner.get_loop())
        self.runner.close()

    def recover(self) -> None:
        """Left alone, with a provider that works again, all who wait are served and the pool is at its target."""
        self.provider.failures, self.provider.makes_in, self.provider.resetting = 0, 0.1, []
        for task in self.asking:
            task.cancel()
        self.run(0)
        for vm in self.held.values():
            self.runner.run(self.pool.release(vm))
        self.run(400)
        self.runner.run(self.pool.at_target())
        stats = self.pool.stats
        assert (stats.active, stats.making, stats.resetting, stats.ending) == (0, 0, 0, 0)
        assert len(self.provider.alive) == stats.idle
        kept = max(1, self.configured.target) if self.kept else 0
        assert min(kept, 1) <= stats.idle <= kept + len(SHAPES) * self.configured.target


TestPool = PoolMachine.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
