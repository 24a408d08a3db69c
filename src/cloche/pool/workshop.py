"""What takes time in a pool that has VMs ready: making, resetting, checking, minding and ending them.

Each piece of work is a task that ends in another look of its owner's at what there is and what is wanted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Protocol

from cloche.errors import GuestError, GuestLost
from cloche.pool.events import VmEnded, VmMade, VmReset
from cloche.pool.failures import did_not_end, words
from cloche.pool.hygiene import Hygiene, UncleanError, warm_up
from cloche.pool.member import Member, State
from cloche.tasks import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from cloche.config import PoolSettings
    from cloche.pool.events import PoolEvent, Why
    from cloche.pool.shelf import Shelf
    from cloche.vm.provider import VmProvider

RESET_DEADLINE = 60.0
"""Seconds a provider has to put a VM back to its template; 0.3 under emulation on an idle machine."""
PING_DEADLINE = 15.0
"""Seconds a waiting VM has to answer."""
SURPLUS_AFTER = 60.0
"""Seconds that a VM more than wanted waits to be wanted."""

_log = logging.getLogger(__name__)


class Owner(Protocol):
    """Who decides what is to be done."""

    def look_again(self) -> None:
        """Something is as it was not before."""

    def failed(self, shelf: Shelf, error: Exception, took: float) -> None:
        """A VM could not be made, after ``took`` seconds."""

    def is_waited_for(self, shelf: Shelf) -> bool:
        """Whether a caller waits for a VM of this shelf."""


class Workshop:
    """Does what its owner decides. ``tell`` hears what happens; it must not raise."""

    def __init__(
        self,
        provider: VmProvider,
        settings: PoolSettings,
        tell: Callable[[PoolEvent], None],
        release_timeout: float,
        owner: Owner,
    ) -> None:
        self._provider = provider
        self._settings = settings
        self._tell = tell
        self._release_timeout = release_timeout
        self._owner = owner
        self._hygiene = Hygiene()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.error("the pool made a mistake", exc_info=error)

    def start_making(self, shelf: Shelf) -> None:
        """Make a VM."""
        shelf.starting += 1
        self._start(self._make(shelf))

    async def _make(self, shelf: Shelf) -> None:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.allocation_timeout):
                allocation = await self._provider.allocate(shelf.spec)
        except Exception as error:  # noqa: BLE001 - a provider of somebody else's may raise anything
            shelf.starting -= 1
            self._owner.failed(shelf, error, time.perf_counter() - started)
            return
        took = time.perf_counter() - started
        member = Member(allocation.vm, shelf, _now(), allocation.source, took)
        shelf.starting -= 1
        shelf.members[member.id] = member
        self._tell(VmMade(member.id, self._provider.name, shelf.spec.image, allocation.source, took))
        if await self._is_fit(member):
            shelf.succeeded()
            self.offer(member)
            self._owner.look_again()

    def recycle(self, member: Member) -> None:
        """Put a used VM back to its template, or replace it; where all is being ended, that is all there is to do."""
        if not self._closing:
            self._start(self._recycle(member))

    async def _recycle(self, member: Member) -> None:
        if why := self._worn(member):
            self.retire(member, why)
            return
        started = time.perf_counter()
        try:
            async with asyncio.timeout(RESET_DEADLINE):
                await self._provider.reset(member.vm)
        except Exception as error:  # noqa: BLE001 - a provider of somebody else's may raise anything
            self.retire(member, "reset failed", words(error))
            return
        member.resume_time = time.perf_counter() - started
        self._tell(VmReset(member.id, self._provider.name, member.shelf.spec.image, member.resume_time))
        if await self._is_fit(member):
            self.offer(member)
            self._owner.look_again()

    async def _is_fit(self, member: Member) -> bool:
        """Check a VM in which nothing has run, and warm it up unless somebody waits for it; else it is ended."""
        started = time.perf_counter()
        try:
            found = await self._hygiene.check(member.vm, member.baseline)
            member.baseline = member.baseline or found
            if not self._owner.is_waited_for(member.shelf):
                member.exec_time = await warm_up(member.vm.guest)
                await self._hygiene.settle(member.vm, found)
        except GuestError as error:
            self.retire(member, _why(error), error.message)
            if member.state is State.MAKING or not member.uses:
                self._owner.failed(member.shelf, error, time.perf_counter() - started)
            return False
        return True

    def offer(self, member: Member) -> None:
        """A VM is ready; from now on it is minded."""
        if self._closing:
            return
        member.state = State.IDLE
        member.idle_since = _now()
        member.minder = self._start(self._mind(member))

    async def _mind(self, member: Member) -> None:
        why, detail = await self._trouble(member)
        if member.state is State.IDLE:
            self.retire(member, why, detail)
            self._owner.look_again()

    async def _trouble(self, member: Member) -> tuple[Why, str]:
        """Wait until a VM that waits is of no more use."""
        guest = member.vm.guest
        while True:
            try:
                async with asyncio.timeout(self._settings.health_interval):
                    return "lost", (await guest.lost()).message
            except TimeoutError:
                pass
            if why := self._worn(member):
                return why, ""
            if self._is_surplus(member):
                return "surplus", ""
            try:
                async with asyncio.timeout(PING_DEADLINE):
                    await guest.ping()
            except (GuestError, TimeoutError) as error:
                return "unhealthy", words(error)

    def _worn(self, member: Member) -> Why | None:
        if _now() - member.made_at >= self._settings.max_age:
            return "age"
        return "uses" if member.uses >= self._settings.max_uses else None

    def _is_surplus(self, member: Member) -> bool:
        now, shelf = _now(), member.shelf
        return now - member.idle_since >= SURPLUS_AFTER and shelf.count(State.IDLE) > shelf.wanted(now)

    async def leave_alone(self, member: Member) -> None:
        """Have nothing of the pool's under way in a VM any more."""
        if member.minder is not None:
            member.minder.cancel()
            await asyncio.wait({member.minder})
            member.minder = None

    def retire(self, member: Member, why: Why, detail: str = "") -> asyncio.Task[None]:
        """End a VM, in the task that this returns."""
        member.state = State.ENDING
        if detail:
            _log.warning("VM %s is replaced (%s): %s", member.id, why, detail)
        return self._start(self._end(member, why, detail))

    async def _end(self, member: Member, why: Why, detail: str = "") -> None:
        try:
            await finish(self._give_back(member))
        except Exception as error:  # noqa: BLE001 - a provider of somebody else's may raise anything
            _log.warning("%s", words(error))
        finally:
            self._gone(member, why, detail)
            self._owner.look_again()

    def _gone(self, member: Member, why: Why, detail: str = "") -> None:
        if member.shelf.members.pop(member.id, None) is not None:
            self._tell(VmEnded(member.id, self._provider.name, why, detail))

    async def _give_back(self, member: Member) -> None:
        try:
            async with asyncio.timeout(self._release_timeout):
                await self._provider.release(member.vm)
        except TimeoutError as late:
            raise did_not_end(member.vm, self._release_timeout) from late

    async def close(self, find: Callable[[], list[Member]]) -> None:
        """Stop all work and end the VMs that are left. Raises what ending one raises, once all have ended."""
        self._closing = True
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
        members = find()
        results = await asyncio.gather(*map(self._give_back, members), return_exceptions=True)
        for member in members:
            self._gone(member, "closed")
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise failures[0]


def _why(error: GuestError) -> Why:
    if isinstance(error, UncleanError):
        return "dirty"
    return "lost" if isinstance(error, GuestLost) else "unhealthy"


def _now() -> float:
    return asyncio.get_running_loop().time()
