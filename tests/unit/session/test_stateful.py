"""The session manager against a model: whatever is done in whatever order, the counts and bonds hold."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from cloche.errors import GuestLost, ProviderError, SessionLimitReached
from cloche.pool import VmPool
from cloche.session import (
    Session,
    SessionContext,
    SessionManager,
    SessionRegistry,
    SessionState,
    SessionStateError,
)
from cloche.session.model import NEXT_STATES
from cloche.vm.fake import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import TypeVar

    from hypothesis.stateful import Bundle as BundleOf
    from hypothesis.stateful import MultipleResults

    from cloche.vm.fake import FakeGuest
    from cloche.vm.provider import VmSpec

    T = TypeVar("T")

LIMIT = 3


class Sessions(RuleBasedStateMachine):
    """Two managers (as two processes would have) share a machine with a limit."""

    live: BundleOf[Session] = Bundle("live")
    released: BundleOf[Session] = Bundle("released")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.registry = SessionRegistry(self.folder / "sessions")
        self.broken = False
        self.managers = [self.manager(), self.manager()]
        self.states: dict[str, SessionState] = {}
        self.owners: dict[str, SessionManager] = {}
        self.vm_ids: set[str] = set()

    def manager(self) -> SessionManager:
        async def on_allocate(_spec: VmSpec, _number: int) -> None:
            if self.broken:
                raise ProviderError("no room")

        return SessionManager(VmPool(FakeProvider(on_allocate=on_allocate)), self.registry, LIMIT)

    def do(self, work: Coroutine[None, None, T]) -> T:
        return self.runner.run(work)

    @rule(target=live, which=st.integers(0, 1), broken=st.booleans())
    def create(self, which: int, broken: bool) -> MultipleResults[Session] | Session:  # noqa: FBT001 - hypothesis passes it by name
        self.broken = broken
        create = self.managers[which].create_session(SessionContext("CI"))
        if len(self.states) >= LIMIT:
            with pytest.raises(SessionLimitReached):
                self.do(create)
            return multiple()
        if broken:
            with pytest.raises(ProviderError, match="no room"):
                self.do(create)
            return multiple()
        session = self.do(create)
        assert session.vm_id not in self.vm_ids
        self.vm_ids.add(session.vm_id)
        self.states[session.id] = SessionState.INITIALIZING
        self.owners[session.id] = self.managers[which]
        return session

    @rule(session=live, state=st.sampled_from(SessionState))
    def move(self, session: Session, state: SessionState) -> None:
        if state in NEXT_STATES[self.states[session.id]]:
            self.owners[session.id].update_state(session, state)
            self.states[session.id] = state
        else:
            with pytest.raises(SessionStateError):
                self.owners[session.id].update_state(session, state)

    @rule(target=released, session=consumes(live), times=st.integers(1, 3))
    def release(self, session: Session, times: int) -> Session:
        async def at_once() -> None:
            owner = self.owners[session.id]
            await asyncio.gather(*(owner.release_session(session) for _ in range(times)))

        self.do(at_once())
        del self.states[session.id]
        return session

    @rule(session=released)
    def release_again(self, session: Session) -> None:
        self.do(self.owners[session.id].release_session(session))

    @rule(session=live)
    def lose_the_guest(self, session: Session) -> None:
        guest: FakeGuest = session.vm.guest  # type: ignore[assignment] # it is the fake's
        guest.lose(GuestLost("the guest died"))

    @invariant()
    def the_machine_counts_what_lives(self) -> None:
        assert {one.id for one in self.do(self.registry.active())} == set(self.states)
        assert sum(manager.stats().active for manager in self.managers) == len(self.states) <= LIMIT
        for manager in self.managers:
            stats = manager.stats()
            assert stats.active == stats.pool.active == stats.created - stats.released
            assert stats.created == stats.pool.allocated

    @invariant()
    def states_are_what_the_model_says(self) -> None:
        for id_, state in self.states.items():
            assert self.owners[id_].get(id_).state is state

    def teardown(self) -> None:
        for manager in self.managers:
            self.do(manager.close())
        assert self.do(self.registry.active()) == []
        self.runner.close()
        shutil.rmtree(self.folder)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=settings().max_examples * 2 // 5, stateful_step_count=30, deadline=None
)
