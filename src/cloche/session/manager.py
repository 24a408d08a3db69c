"""The session manager: nothing else in the house binds a run to a VM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from typing import TYPE_CHECKING

from cloche.errors import SessionLimitReached
from cloche.records import record
from cloche.session.events import Created, Failed, Refused, Released, Stale
from cloche.session.model import (
    NEXT_STATES,
    Session,
    SessionContext,
    SessionState,
    SessionStateError,
    new_session_id,
)
from cloche.session.registry import ActiveSession
from cloche.tasks import finish
from cloche.units import format_duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from cloche.pool import PoolStats, VmPool
    from cloche.session.events import SessionEvent, SessionObserver
    from cloche.session.registry import SessionRegistry, Slot
    from cloche.vm.provider import Allocation
    from cloche.vm.snapshot import VmSnapshot

_log = logging.getLogger(__name__)

DEFAULT_LIMIT = 4
"""Sessions of one user on one machine at the same time, unless configured."""
SESSION_TIMEOUT = 3600.0
CLEANUP_INTERVAL = 60.0


@record
class SessionStats:
    """Counts since the start, and those of now.

    ``created`` sessions got a VM, ``released`` ended, ``stale`` of these for want of activity; ``refused`` ones met
    the limit, ``failed`` ones got no VM. ``active`` and ``waiting`` are now.
    """

    created: int
    released: int
    refused: int
    failed: int
    stale: int
    active: int
    waiting: int
    pool: PoolStats


@record(frozen=False)
class _Held:
    """A session of this manager; ``created`` and ``touched`` are of the manager's timer."""

    session: Session
    slot: Slot
    created: float
    touched: float
    releasing: asyncio.Task[None] | None = None


class SessionManager:
    """Creates and ends sessions, at most ``limit`` of this user on this machine at a time.

    An async context manager: leaving it releases every session it still has and closes its pool.

    At the limit a session is refused at once or, with ``wait`` (seconds), waits its turn for so long. With
    ``auto_cleanup`` a session that had no activity for ``session_timeout`` seconds is released; it is looked for
    every ``cleanup_interval``. ``observer`` is told what happens. ``clock`` gives seconds since the epoch;
    ``timer`` seconds that stand still while the machine sleeps.
    """

    def __init__(
        self,
        pool: VmPool,
        registry: SessionRegistry,
        limit: int = DEFAULT_LIMIT,
        *,
        wait: float = 0.0,
        session_timeout: float = SESSION_TIMEOUT,
        cleanup_interval: float = CLEANUP_INTERVAL,
        auto_cleanup: bool = True,
        observer: SessionObserver | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._registry = registry
        self._limit = limit
        self._wait = wait
        self._session_timeout = session_timeout
        self._cleanup_interval = cleanup_interval
        self._auto_cleanup = auto_cleanup
        self._observer = observer
        self._clock = clock
        self._timer = timer
        self._held: dict[str, _Held] = {}
        self._counts: Counter[str] = Counter()
        self._waiting = 0
        self._cleaner: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # Beginning

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about its VMs."""
        return self._pool.notes

    async def create_session(
        self, context: SessionContext, *, limit: int | None = None, wait: float | None = None
    ) -> Session:
        """Take a place, then a VM, and bind them. ``limit`` and ``wait`` go before the manager's own.

        Raises SessionLimitReached before any VM is asked for, and what the pool raises when there is no VM:
        then the place is free again. SessionStateError when the manager is closed.
        """
        self._check_open()
        asked = self._timer()
        session_id = new_session_id()
        slot = await self._take_slot(
            session_id, context, self._limit if limit is None else limit, self._wait if wait is None else wait
        )
        waited = self._timer() - asked
        try:
            allocation = await self._allocate(context)
        except BaseException:
            slot.release()
            raise
        return self._bind(session_id, context, allocation, slot, waited)

    async def _take_slot(self, session_id: str, context: SessionContext, limit: int, wait: float) -> Slot:
        wanted = ActiveSession(session_id, context.workflow, os.getpid(), self._clock())
        asked = self._timer()
        self._waiting += 1
        try:
            return await self._registry.add(wanted, limit, patience=wait, tell=context.on_wait)
        except SessionLimitReached:
            self._counts["refused"] += 1
            self._tell(Refused(limit, self._timer() - asked, len(self._held)))
            raise
        finally:
            self._waiting -= 1

    async def _allocate(self, context: SessionContext) -> Allocation:
        asked = self._timer()
        try:
            self._check_open()
            kept = context.snapshot
            allocation = await (self._pool.resume(kept) if kept else self._pool.allocate(context.spec))
        except BaseException as error:
            self._counts["failed"] += 1
            reason = "Cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__
            took = self._timer() - asked
            self._tell(Failed(reason, self._pool.provider, context.spec.image, took, len(self._held)))
            raise
        if self._closed:  # meanwhile
            await self._pool.release(allocation.vm)
            self._check_open()
        return allocation

    def _bind(
        self, session_id: str, context: SessionContext, allocation: Allocation, slot: Slot, waited: float
    ) -> Session:
        now, timed = self._clock(), self._timer()
        session = Session(session_id, context, allocation, started_at=now, last_activity=now)
        self._held[session_id] = _Held(session, slot, timed, timed)
        self._counts["created"] += 1
        took = format_duration(allocation.duration)
        _log.info("Allocated VM %s in %s for session %s", session.vm_id, took, session_id)
        self._tell(
            Created(
                session_id,
                session.vm_id,
                session.vm_type,
                context.spec.image,
                allocation.source,
                allocation.duration,
                waited,
                len(self._held),
            )
        )
        if self._auto_cleanup and self._cleaner is None:
            self._cleaner = asyncio.create_task(self._clean_up())
        return session

    @contextlib.asynccontextmanager
    async def session(self, context: SessionContext) -> AsyncIterator[Session]:
        """Create a session and release it at the end of the block, whatever happens in it."""
        session = await self.create_session(context)
        try:
            yield session
        finally:
            await self.release_session(session)

    def _check_open(self) -> None:
        if self._closed:
            raise SessionStateError("the session manager is closed: it creates no more sessions")

    # Life

    def get(self, session_id: str) -> Session:
        """Return the session of this id. SessionStateError when there is none, or not any more."""
        return self._alive(session_id).session

    def update_state(self, session: Session, state: SessionState) -> None:
        """Move a session to another state. SessionStateError when its state does not lead there."""
        held = self._alive(session.id)
        if state not in NEXT_STATES[session.state]:
            raise SessionStateError(f"session {session.id} is {session.state} and cannot become {state}")
        session.state = state
        self._touch(held)

    def touch(self, session: Session) -> None:
        """Note that the session is being used. SessionStateError when it has been released."""
        self._touch(self._alive(session.id))

    async def snapshot(self, session: Session, folder: Path, number: int | None = None) -> VmSnapshot:
        """Keep what the session's VM is now in ``folder``, which must not exist; see SnapshotProvider.

        ``number`` is the last one used on the guest's channel where another process speaks to it. Raises
        SessionStateError when the session has been released, and what the pool raises.
        """
        self._alive(session.id)
        taken = await self._pool.snapshot(session.vm, folder, number)
        self.add_snapshot(session, folder.name)
        return taken

    async def restore(self, session: Session, snapshot: VmSnapshot) -> None:
        """Put the session's VM back to a snapshot of it; its ``guest`` is another then. Raises as ``snapshot``."""
        self._touch(self._alive(session.id))
        await self._pool.restore(session.vm, snapshot)

    def add_snapshot(self, session: Session, snapshot: str) -> None:
        """Note a snapshot of the session's VM by its id. SessionStateError when the session has been released."""
        held = self._alive(session.id)
        session.snapshots += (snapshot,)
        self._touch(held)

    def last_snapshot(self, session: Session) -> str | None:
        """Return the id of the latest snapshot, ``None`` without one. SessionStateError as above."""
        snapshots = self._alive(session.id).session.snapshots
        return snapshots[-1] if snapshots else None

    def _alive(self, session_id: str) -> _Held:
        held = self._held.get(session_id)
        if held is None or held.releasing:
            raise SessionStateError(f"there is no session {session_id}; it may have been released")
        return held

    def _touch(self, held: _Held) -> None:
        held.touched = self._timer()
        held.session.last_activity = self._clock()

    # End

    async def release_session(self, session: Session) -> None:
        """End a session and its VM; a released one is left alone.

        Goes on to the end when the caller is cancelled. Raises what the pool raises; the place among the
        sessions is given back even then. SessionStateError for a session of another manager.
        """
        held = self._held.get(session.id)
        if held is None:
            if session.state is not SessionState.TERMINATING:
                raise SessionStateError(f"session {session.id} is not one of this manager's")
            return
        await finish(self._releasing(held))

    def _releasing(self, held: _Held, why: str = "it was released") -> asyncio.Task[None]:
        """Return the one task that ends a session, begun now unless it has been; who works in it is told."""
        session = held.session
        if held.releasing is None:
            session.state = SessionState.TERMINATING
            session.last_activity = self._clock()
            held.releasing = asyncio.create_task(self._release(held))
            self._tell_loss(session, why)
        return held.releasing

    @staticmethod
    def _tell_loss(session: Session, why: str) -> None:
        if session.on_loss is None:
            return
        try:
            session.on_loss(why)
        except Exception:  # noqa: BLE001 - the session ends all the same, and others may be to come
            _log.exception("Whoever works in session %s could not be told that it ended", session.id)

    async def _release(self, held: _Held) -> None:
        session, clean = held.session, False
        try:
            await self._pool.release(session.vm, recycle=not session.snapshots)
            clean = True
        finally:
            held.slot.release()
            del self._held[session.id]
            self._counts["released"] += 1
            lived = self._timer() - held.created
            self._tell(Released(session.id, session.vm_id, session.vm_type, lived, clean, len(self._held)))
        _log.info("Released session %s with VM %s", session.id, session.vm_id)

    async def release_stale(self) -> list[Session]:
        """Release the sessions that had no activity for ``session_timeout``; return them.

        Whoever works in one is told first. A VM that cannot be given back is told of in the log.
        """
        now = self._timer()
        stale = [
            held
            for held in self._held.values()
            if held.releasing is None and now - held.touched >= self._session_timeout
        ]
        tasks = [self._take_away(held, now - held.touched) for held in stale]
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                _log.error("A stale session could not be released: %s", result)
        return [held.session for held in stale]

    def _take_away(self, held: _Held, idle: float) -> asyncio.Task[None]:
        session = held.session
        self._counts["stale"] += 1
        self._tell(Stale(session.id, session.vm_id, idle))
        why = f"it had no activity for {format_duration(idle)}"
        _log.warning("Releasing session %s: %s", session.id, why)
        return self._releasing(held, why)

    async def _clean_up(self) -> None:
        while True:
            await asyncio.sleep(self._cleanup_interval)
            await self.release_stale()

    def stats(self) -> SessionStats:
        """Return the counts so far."""
        counts = self._counts
        return SessionStats(
            created=counts["created"],
            released=counts["released"],
            refused=counts["refused"],
            failed=counts["failed"],
            stale=counts["stale"],
            active=len(self._held),
            waiting=self._waiting,
            pool=self._pool.stats,
        )

    async def close(self) -> None:
        """Release every session and close the pool, even when one of them cannot be released."""
        self._closed = True
        await finish(self._close())

    async def _close(self) -> None:
        if self._cleaner:
            self._cleaner.cancel()
            await asyncio.wait({self._cleaner})
        sessions = [held.session for held in self._held.values()]
        results = await asyncio.gather(*map(self.release_session, sessions), return_exceptions=True)
        await self._pool.close()
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise failures[0]

    def _tell(self, event: SessionEvent) -> None:
        if self._observer is None:
            return
        try:
            self._observer(event)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, no session may suffer
            _log.exception("The observer of sessions failed at %s", event)
