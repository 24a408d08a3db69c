from __future__ import annotations

import asyncio
import itertools
import logging
import re
from typing import TYPE_CHECKING, Any

import pytest

from cloche.errors import ProviderError, SessionLimitReached
from cloche.pool import VmPool
from cloche.session import (
    Session,
    SessionContext,
    SessionManager,
    SessionRegistry,
    SessionState,
    SessionStateError,
)
from cloche.session.events import Created, Failed, Refused, Released, SessionEvent, Stale
from cloche.session.model import NEXT_STATES
from cloche.vm.fake import FakeProvider

if TYPE_CHECKING:
    from pathlib import Path

    from cloche.session import Waiting
    from cloche.vm.provider import Vm, VmSpec

CI = SessionContext("CI")


@pytest.fixture
def registry(tmp_path: Path) -> SessionRegistry:
    return SessionRegistry(tmp_path / "sessions")


def manager(
    registry: SessionRegistry, provider: FakeProvider | None = None, limit: int = 4, **more: Any
) -> SessionManager:
    clock = itertools.count(1000.0)
    return SessionManager(
        VmPool(provider or FakeProvider()), registry, limit, clock=lambda: next(clock), **more
    )


class Timer:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_session_is_bound_to_one_vm(registry: SessionRegistry) -> None:
    async with manager(registry) as sessions:
        session = await sessions.create_session(CI)
        assert re.fullmatch(r"sess-[0-9a-f]{12}", session.id)
        assert session.vm_id == session.vm.id
        assert session.vm_type == "fake"
        assert session.state is SessionState.INITIALIZING
        assert session.snapshots == ()
        assert session.started_at == session.last_activity
        assert sessions.get(session.id) is session
        assert [one.id for one in await registry.active()] == [session.id]


async def test_release_ends_the_vm_and_the_session(registry: SessionRegistry) -> None:
    async with manager(registry) as sessions:
        session = await sessions.create_session(CI)
        await sessions.release_session(session)
        assert session.state is SessionState.TERMINATING
        with pytest.raises(Exception, match="released"):
            await session.vm.guest.ping()
        with pytest.raises(SessionStateError, match=f"no session {session.id}"):
            sessions.get(session.id)
        with pytest.raises(SessionStateError):
            sessions.update_state(session, SessionState.ACTIVE)
        assert await registry.active() == []


async def test_release_is_idempotent_and_concurrent(registry: SessionRegistry) -> None:
    async with manager(registry) as sessions:
        session = await sessions.create_session(CI)
        await asyncio.gather(*(sessions.release_session(session) for _ in range(3)))
        await sessions.release_session(session)
        assert sessions.stats().released == sessions.stats().pool.released == 1


async def test_the_log_tells_both_ends(registry: SessionRegistry, caplog: pytest.LogCaptureFixture) -> None:
    times = itertools.chain([10.0, 10.0844], itertools.repeat(20.0))
    provider = FakeProvider(clock=lambda: next(times))
    with caplog.at_level(logging.INFO, logger="cloche.session"):
        async with manager(registry, provider) as sessions:
            session = await sessions.create_session(CI)
            await sessions.release_session(session)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", f"Allocated VM {session.vm_id} in 84 ms for session {session.id}"),
        ("INFO", f"Released session {session.id} with VM {session.vm_id}"),
    ]


# The limit


async def test_the_limit_is_checked_before_any_vm_is_asked_for(registry: SessionRegistry) -> None:
    async with manager(registry, limit=2) as sessions:
        active = [await sessions.create_session(CI) for _ in range(2)]
        with pytest.raises(SessionLimitReached):
            await sessions.create_session(CI)
        assert sessions.stats().pool.allocated == 2
        assert sessions.stats().refused == 1
        for session in active:
            assert await session.vm.guest.ping() == 0


async def test_managers_share_the_machine(registry: SessionRegistry) -> None:
    async with manager(registry, limit=1) as first, manager(registry, limit=1) as second:
        session = await first.create_session(CI)
        with pytest.raises(SessionLimitReached, match=session.id):
            await second.create_session(CI)
        await first.release_session(session)
        await second.create_session(CI)


async def test_a_failed_allocation_gives_the_place_back(registry: SessionRegistry) -> None:
    async def broken(_spec: VmSpec, number: int) -> None:
        if number == 1:
            raise ProviderError("no room")

    async with manager(registry, FakeProvider(on_allocate=broken), limit=1) as sessions:
        with pytest.raises(ProviderError, match="no room"):
            await sessions.create_session(CI)
        assert await registry.active() == []
        assert (await sessions.create_session(CI)).vm_type == "fake"
        assert (sessions.stats().failed, sessions.stats().created) == (1, 1)


async def test_a_cancelled_allocation_gives_the_place_back(registry: SessionRegistry) -> None:
    asked = asyncio.Event()

    async def slow(_spec: VmSpec, _number: int) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with manager(registry, FakeProvider(on_allocate=slow), limit=1) as sessions:
        creating = asyncio.create_task(sessions.create_session(CI))
        await asked.wait()
        creating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert await registry.active() == []


# The end


class Slow(FakeProvider):
    """Ends a VM only when told."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()

    async def release(self, vm: Vm) -> None:
        await self.go.wait()
        await super().release(vm)


async def test_release_goes_on_when_its_caller_is_cancelled(registry: SessionRegistry) -> None:
    provider = Slow()
    sessions = manager(registry, provider)
    session = await sessions.create_session(CI)
    releasing = asyncio.create_task(sessions.release_session(session))
    for _ in range(4):
        await asyncio.sleep(0)
        releasing.cancel()
    provider.go.set()
    with pytest.raises(asyncio.CancelledError):
        await releasing
    assert sessions.stats().active == 0
    assert await registry.active() == []
    await sessions.close()


async def test_a_block_releases_its_session_however_it_ends(registry: SessionRegistry) -> None:
    async with manager(registry) as sessions:
        with pytest.raises(ValueError, match="in the block"):
            async with sessions.session(CI) as session:
                raise ValueError("in the block")
        assert session.state is SessionState.TERMINATING
        assert sessions.stats().active == 0


async def test_leaving_the_manager_releases_every_session(registry: SessionRegistry) -> None:
    async with manager(registry) as sessions:
        kept = [await sessions.create_session(CI) for _ in range(3)]
    assert sessions.stats().active == sessions.stats().pool.active == 0
    assert {session.state for session in kept} == {SessionState.TERMINATING}
    assert await registry.active() == []


async def test_a_vm_that_will_not_end_does_not_keep_the_place(registry: SessionRegistry) -> None:
    class Broken(FakeProvider):
        async def release(self, vm: Vm) -> None:
            raise ProviderError(f"VM {vm.id} is stuck")

    sessions = manager(registry, Broken())
    first, second = await sessions.create_session(CI), await sessions.create_session(CI)
    with pytest.raises(ProviderError, match=first.vm_id):
        await sessions.release_session(first)
    assert [one.id for one in await registry.active()] == [second.id]
    with pytest.raises(ProviderError, match="is stuck"):
        await sessions.close()
    assert await registry.active() == []


async def test_a_session_of_another_manager_is_refused(registry: SessionRegistry) -> None:
    async with manager(registry) as ours, manager(registry) as theirs:
        session = await theirs.create_session(CI)
        with pytest.raises(SessionStateError, match="not one of this manager's"):
            await ours.release_session(session)


# States


async def at(sessions: SessionManager, state: SessionState) -> Session:
    """A session that came to this state by legal steps."""
    ways: dict[SessionState, list[SessionState]] = {SessionState.INITIALIZING: []}
    while state not in ways:
        for known, way in list(ways.items()):
            for following in NEXT_STATES[known]:
                ways.setdefault(following, [*way, following])
    session = await sessions.create_session(CI)
    for step in ways[state]:
        sessions.update_state(session, step)
    return session


@pytest.mark.parametrize("before", SessionState)
async def test_a_state_leads_only_where_it_may(registry: SessionRegistry, before: SessionState) -> None:
    async with manager(registry, limit=99) as sessions:
        for after in SessionState:
            session = await at(sessions, before)
            earlier = session.last_activity
            if after in NEXT_STATES[before]:
                sessions.update_state(session, after)
                assert session.state is after
                assert session.last_activity > earlier
            else:
                with pytest.raises(SessionStateError, match=f"{before} and cannot become {after}"):
                    sessions.update_state(session, after)
                assert (session.state, session.last_activity) == (before, earlier)


def test_every_state_leads_to_the_end_and_nothing_follows_it() -> None:
    for state, following in NEXT_STATES.items():
        assert (SessionState.TERMINATING in following) == (state is not SessionState.TERMINATING)
    assert set(NEXT_STATES) == set(SessionState)
    assert [str(state) for state in SessionState] == [
        "Initializing",
        "Active",
        "Executing",
        "Paused",
        "Completed",
        "Failed",
        "RolledBack",
        "Terminating",
    ]


# Waiting


async def test_a_session_waits_for_its_turn_and_is_told_of_it(registry: SessionRegistry) -> None:
    told: list[Waiting] = []
    at_the_gate = asyncio.Event()

    def on_wait(waiting: Waiting) -> None:
        told.append(waiting)
        at_the_gate.set()

    async with manager(registry, limit=1, wait=60.0) as sessions:
        first = await sessions.create_session(CI)
        second = asyncio.create_task(sessions.create_session(SessionContext("CI", on_wait=on_wait)))
        await at_the_gate.wait()
        assert sessions.stats().waiting == 1
        assert sessions.stats().pool.allocated == 1
        await sessions.release_session(first)
        assert (await second).state is SessionState.INITIALIZING
        assert [(one.place, one.limit, one.active) for one in told] == [(1, 1, 1)]
        assert sessions.stats().waiting == sessions.stats().refused == 0


async def test_waiting_ends_at_its_deadline(registry: SessionRegistry) -> None:
    events: list[SessionEvent] = []
    async with manager(registry, limit=1, wait=0.01, observer=events.append) as sessions:
        first = await sessions.create_session(CI)
        with pytest.raises(SessionLimitReached, match=f"was reached for 1[0-9] ms(.|\\n)*{first.id}"):
            await sessions.create_session(CI)
        refused = events[-1]
        assert isinstance(refused, Refused)
        assert (refused.limit, refused.active) == (1, 1)
        assert refused.waited >= 0.01


async def test_nobody_creates_sessions_of_a_closed_manager(registry: SessionRegistry) -> None:
    allocating, go = asyncio.Event(), asyncio.Event()

    async def slow(_spec: VmSpec, _number: int) -> None:
        allocating.set()
        await go.wait()

    sessions = manager(registry, FakeProvider(on_allocate=slow))
    creating = asyncio.create_task(sessions.create_session(CI))
    await allocating.wait()
    await sessions.close()
    go.set()
    with pytest.raises(Exception, match="closed"):
        await creating
    with pytest.raises(SessionStateError, match="closed"):
        await sessions.create_session(CI)
    assert sessions.stats().pool.active == 0
    assert await registry.active() == []


# Activity


async def test_a_session_without_activity_is_released(registry: SessionRegistry) -> None:
    timer, events, told = Timer(), list[SessionEvent](), list[str]()
    async with manager(
        registry, session_timeout=3600, auto_cleanup=False, timer=timer, observer=events.append
    ) as sessions:
        idle, used = await sessions.create_session(CI), await sessions.create_session(CI)
        idle.on_loss = told.append
        timer.now = 3599
        sessions.touch(used)
        assert await sessions.release_stale() == []
        timer.now = 3600
        assert await sessions.release_stale() == [idle]
        assert idle.state is SessionState.TERMINATING
        assert told == ["it had no activity for 1 h 0 min"]
        assert Stale(idle.id, idle.vm_id, 3600.0) in events
        assert await sessions.release_stale() == []
        assert (sessions.stats().stale, sessions.stats().active) == (1, 1)
        await sessions.release_session(idle)
        with pytest.raises(SessionStateError, match=idle.id):
            sessions.touch(idle)


async def test_stale_sessions_are_looked_for_by_themselves(registry: SessionRegistry) -> None:
    released = asyncio.Event()

    def observe(event: SessionEvent) -> None:
        if isinstance(event, Released):
            released.set()

    async with manager(registry, session_timeout=0.0, cleanup_interval=0.001, observer=observe) as sessions:
        session = await sessions.create_session(CI)
        await released.wait()
        assert session.state is SessionState.TERMINATING


async def test_without_auto_cleanup_nobody_looks(registry: SessionRegistry) -> None:
    before = asyncio.all_tasks()
    async with manager(registry, session_timeout=0.0, cleanup_interval=0.0, auto_cleanup=False) as sessions:
        await sessions.create_session(CI)
        assert asyncio.all_tasks() == before


async def test_a_stale_vm_that_will_not_end_does_not_end_the_looking(
    registry: SessionRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    class Stuck(FakeProvider):
        async def release(self, vm: Vm) -> None:
            await super().release(vm)
            raise ProviderError(f"VM {vm.id} is stuck")

    async with manager(registry, Stuck(), session_timeout=0.0, auto_cleanup=False) as sessions:
        session = await sessions.create_session(CI)
        assert await sessions.release_stale() == [session]
        assert f"VM {session.vm_id} is stuck" in caplog.text
        assert await registry.active() == []


async def test_who_works_in_a_session_is_told_when_another_releases_it(registry: SessionRegistry) -> None:
    told: list[str] = []
    sessions = manager(registry)
    session = await sessions.create_session(CI)
    session.on_loss = told.append
    await sessions.close()
    assert told == ["it was released"]


async def test_who_cannot_be_told_keeps_no_session_alive(
    registry: SessionRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_why: str) -> None:
        raise ValueError("cannot be told")

    async with manager(registry, session_timeout=0.0, auto_cleanup=False) as sessions:
        kept = [await sessions.create_session(CI) for _ in range(2)]
        kept[0].on_loss = broken
        assert await sessions.release_stale() == kept
        assert "cannot be told" in caplog.text
        assert await registry.active() == []


async def test_snapshots_are_noted_and_count_as_activity(registry: SessionRegistry) -> None:
    async with manager(registry) as sessions:
        session = await sessions.create_session(CI)
        before = session.last_activity
        assert sessions.last_snapshot(session) is None
        sessions.add_snapshot(session, "snap-1")
        sessions.add_snapshot(session, "snap-2")
        assert session.snapshots == ("snap-1", "snap-2")
        assert sessions.last_snapshot(session) == "snap-2"
        assert session.last_activity > before
        await sessions.release_session(session)
        with pytest.raises(SessionStateError):
            sessions.add_snapshot(session, "snap-3")


# The observer


async def test_the_observer_is_told_what_happens(registry: SessionRegistry) -> None:
    timer, events = Timer(), list[SessionEvent]()

    async def first_fails(_spec: VmSpec, number: int) -> None:
        timer.now += 2
        if number == 1:
            raise ProviderError("no room")

    provider = FakeProvider(on_allocate=first_fails)
    async with manager(registry, provider, limit=1, timer=timer, observer=events.append) as sessions:
        with pytest.raises(ProviderError):
            await sessions.create_session(CI)
        session = await sessions.create_session(CI)
        with pytest.raises(SessionLimitReached):
            await sessions.create_session(CI)
        timer.now += 7
        await sessions.release_session(session)
    failed, created, refused, released = events
    assert failed == Failed("ProviderError", "fake", "default", 2.0, 0)
    assert isinstance(created, Created)
    assert (created.session_id, created.vm_id, created.active) == (session.id, session.vm_id, 1)
    assert (created.provider, created.image, created.source) == ("fake", "default", session.allocation.source)
    assert refused == Refused(1, 0.0, 1)
    assert released == Released(session.id, session.vm_id, "fake", 7.0, True, 0)


async def test_a_failing_observer_hurts_no_session(
    registry: SessionRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_event: SessionEvent) -> None:
        raise ValueError("the observer is broken")

    async with manager(registry, observer=broken) as sessions:
        session = await sessions.create_session(CI)
        await sessions.release_session(session)
    assert len(caplog.records) == 2
