"""The session manager against a model: whatever is done in whatever order, the counts, bonds and turns hold."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from cloche.errors import GuestLost, ProviderError, SessionLimitReached
from cloche.pool import VmPool
from cloche.session import (
    Session,
    SessionContext,
    SessionManager,
    SessionRegistry,
    SessionState,
    SessionStateError,
    registry,
)
from cloche.session.model import NEXT_STATES
from cloche.vm.fake import FakeProvider

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import TypeVar

    from hypothesis.stateful import Bundle as BundleOf
    from hypothesis.stateful import MultipleResults

    from cloche.session.events import SessionEvent
    from cloche.vm.fake import FakeGuest
    from cloche.vm.provider import VmSpec

    T = TypeVar("T")

LIMIT = 3
TIMEOUT = 100.0
PATIENT = 3600.0
RARELY = st.sampled_from([False, False, False, True])


class Sessions(RuleBasedStateMachine):
    """Two managers (as two processes would have) share a machine with a limit, and a line before it."""

    sessions: BundleOf[Session] = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.asleep: dict[asyncio.Task[Any], asyncio.Event] = {}
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(registry, "asyncio", SimpleNamespace(sleep=self.sleep))
        self.folder = Path(tempfile.mkdtemp())
        self.registry = SessionRegistry(self.folder / "sessions")
        self.broken = False
        self.now = 0.0
        self.told: Counter[str] = Counter()
        self.managers = [self.manager(), self.manager()]
        # the model
        self.line: list[tuple[SessionManager, asyncio.Task[Session]]] = []
        self.states: dict[str, SessionState] = {}
        self.touched: dict[str, float] = {}
        self.owners: dict[str, SessionManager] = {}
        self.vm_ids: set[str] = set()
        self.ended: list[str] = []
        self.lost: list[str] = []
        self.snapshots: dict[str, list[str]] = {}

    def manager(self) -> SessionManager:
        async def on_allocate(_spec: VmSpec, _number: int) -> None:
            if self.broken:
                raise ProviderError("no room")

        def observe(event: SessionEvent) -> None:
            self.told[type(event).__name__] += 1

        return SessionManager(
            VmPool(FakeProvider(on_allocate=on_allocate)),
            self.registry,
            LIMIT,
            session_timeout=TIMEOUT,
            auto_cleanup=False,
            observer=observe,
            timer=lambda: self.now,
        )

    def do(self, work: Coroutine[None, None, T]) -> T:
        return self.runner.run(work)

    async def sleep(self, _seconds: float) -> None:
        """Keep one who waits from looking for its turn until the test says so."""
        task = asyncio.current_task()
        assert task is not None
        gate = self.asleep[task] = asyncio.Event()
        await gate.wait()

    async def let_look(self, task: asyncio.Task[Session]) -> None:
        self.asleep.pop(task).set()
        while not task.done() and task not in self.asleep:  # noqa: ASYNC110 - a few turns of the loop
            await asyncio.sleep(0)

    def alive(self, session: Session) -> bool:
        return session.id in self.states

    # What callers do

    @initialize(target=sessions, which=st.integers(0, 1), count=st.sampled_from([0, LIMIT - 1, LIMIT]))
    def begin(self, which: int, count: int) -> MultipleResults[Session]:
        owner, context = self.managers[which], SessionContext("CI")
        return multiple(*(self.note(owner, self.do(owner.create_session(context))) for _ in range(count)))

    @rule(target=sessions, which=st.integers(0, 1), broken=RARELY)
    def create(self, which: int, broken: bool) -> MultipleResults[Session] | Session:  # noqa: FBT001 - hypothesis passes it by name
        self.broken = broken
        create = self.managers[which].create_session(SessionContext("CI"))
        if len(self.states) + len(self.line) >= LIMIT:
            with pytest.raises(SessionLimitReached):
                self.do(create)
            return multiple()
        if broken:
            with pytest.raises(ProviderError, match="no room"):
                self.do(create)
            return multiple()
        return self.note(self.managers[which], self.do(create))

    @precondition(lambda self: len(self.states) == LIMIT)
    @rule(which=st.lists(st.integers(0, 1), min_size=1, max_size=3))
    def stand_in_line(self, which: list[int]) -> None:
        async def stand(owner: SessionManager) -> asyncio.Task[Session]:
            standing = asyncio.Event()
            context = SessionContext("CI", on_wait=lambda _: standing.set())
            task = asyncio.ensure_future(owner.create_session(context, wait=PATIENT))
            await standing.wait()
            await asyncio.sleep(0)
            return task

        for owner in (self.managers[number] for number in which):
            self.line.append((owner, self.do(stand(owner))))

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def leave_the_line(self, data: st.DataObject) -> None:
        async def leave() -> None:
            task.cancel()
            await asyncio.wait({task})

        _, task = self.line.pop(data.draw(st.integers(0, len(self.line) - 1)))
        self.do(leave())
        assert task.cancelled()

    def turns(self, data: st.DataObject) -> MultipleResults[Session]:
        """Whoever looks first, the places are of those who asked first; so is the provider's error."""
        self.broken = data.draw(RARELY)
        entered: list[Session] = []
        order = data.draw(st.permutations(self.line))
        while any(self.looks(owner, task, entered) for owner, task in order if not task.done()):
            pass
        return multiple(*entered)

    def looks(self, owner: SessionManager, task: asyncio.Task[Session], entered: list[Session]) -> bool:
        """Have one look for its turn; tell whether it was."""
        ahead = self.line.index((owner, task))
        turn = len(self.states) + ahead < LIMIT
        self.do(self.let_look(task))
        assert task.done() == turn
        if turn:
            del self.line[ahead]
            if self.broken:
                assert isinstance(task.exception(), ProviderError)
            else:
                entered.append(self.note(owner, task.result()))
        return turn

    @rule(session=sessions, state=st.sampled_from(SessionState))
    def move(self, session: Session, state: SessionState) -> None:
        owner = self.owners[session.id]
        if self.alive(session) and state in NEXT_STATES[self.states[session.id]]:
            owner.update_state(session, state)
            self.states[session.id] = state
            self.touched[session.id] = self.now
        else:
            with pytest.raises(SessionStateError):
                owner.update_state(session, state)

    @rule(session=sessions)
    def use(self, session: Session) -> None:
        self.attempt(session, lambda: self.owners[session.id].touch(session))

    @rule(session=sessions, name=st.sampled_from("abc"))
    def snapshot(self, session: Session, name: str) -> None:
        owner = self.owners[session.id]
        if self.attempt(session, lambda: owner.add_snapshot(session, name)):
            self.snapshots[session.id].append(name)
            assert owner.last_snapshot(session) == name

    @rule(target=sessions, session=sessions, times=st.integers(1, 3), data=st.data())
    def release(self, session: Session, times: int, data: st.DataObject) -> MultipleResults[Session]:
        async def at_once() -> None:
            owner = self.owners[session.id]
            await asyncio.gather(*(owner.release_session(session) for _ in range(times)))

        self.do(at_once())
        if self.alive(session):
            self.forget(session)
        return self.turns(data)

    @rule(session=sessions)
    def lose_the_guest(self, session: Session) -> None:
        guest: FakeGuest = session.vm.guest  # type: ignore[assignment] # it is the fake's
        guest.lose(GuestLost("the guest died"))

    # What time does

    @rule(seconds=st.sampled_from([1.0, TIMEOUT / 2]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=sessions, data=st.data())
    def stale_ones_are_collected(self, data: st.DataObject) -> MultipleResults[Session]:
        stale = {id_ for id_ in self.states if self.now - self.touched[id_] >= TIMEOUT}
        found = [session for manager in self.managers for session in self.do(manager.release_stale())]
        assert {session.id for session in found} == stale
        for session in found:
            self.forget(session)
        return self.turns(data)

    # The model

    def note(self, owner: SessionManager, session: Session) -> Session:
        assert session.vm_id not in self.vm_ids
        self.vm_ids.add(session.vm_id)
        self.states[session.id] = SessionState.INITIALIZING
        self.touched[session.id] = self.now
        self.owners[session.id] = owner
        self.snapshots[session.id] = []
        session.on_loss = lambda _why: self.lost.append(session.id)
        return session

    def forget(self, session: Session) -> None:
        del self.states[session.id]
        self.ended.append(session.id)
        assert session.state is SessionState.TERMINATING

    def attempt(self, session: Session, act: object) -> bool:
        """Do what only a living session allows, and counts as its use."""
        assert callable(act)
        if not self.alive(session):
            with pytest.raises(SessionStateError, match=session.id):
                act()
            return False
        act()
        self.touched[session.id] = self.now
        return True

    @invariant()
    def the_machine_counts_what_lives(self) -> None:
        assert {one.id for one in self.do(self.registry.active())} == set(self.states)
        assert sum(manager.stats().waiting for manager in self.managers) == len(self.line)
        assert len(self.states) <= LIMIT
        for manager in self.managers:
            stats = manager.stats()
            assert stats.active == stats.pool.active == stats.created - stats.released
            assert stats.created == stats.pool.allocated

    @invariant()
    def states_are_what_the_model_says(self) -> None:
        for id_, state in self.states.items():
            session = self.owners[id_].get(id_)
            assert session.state is state
            assert list(session.snapshots) == self.snapshots[id_]

    @invariant()
    def who_works_in_a_session_hears_of_its_end_once(self) -> None:
        assert sorted(self.lost) == sorted(self.ended)

    @invariant()
    def the_observer_hears_of_everything(self) -> None:
        stats = [manager.stats() for manager in self.managers]
        assert self.told == +Counter(
            Created=sum(one.created for one in stats),
            Released=sum(one.released for one in stats),
            Refused=sum(one.refused for one in stats),
            Failed=sum(one.failed for one in stats),
            Stale=sum(one.stale for one in stats),
        )

    def teardown(self) -> None:
        for _, task in self.line:
            task.cancel()
        for manager in self.managers:
            self.do(manager.close())
        assert self.do(self.registry.active()) == []
        self.runner.close()
        assert list((self.folder / "sessions").glob("*")) == []
        self.patch.undo()
        shutil.rmtree(self.folder)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=settings().max_examples * 2 // 5, stateful_step_count=30, deadline=None
)
