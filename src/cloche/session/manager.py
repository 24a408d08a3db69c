"""The session manager: nothing else in the house binds a run to a VM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING

from cloche.errors import SessionLimitReached
from cloche.records import record
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
    from types import TracebackType
    from typing import Self

    from cloche.pool import PoolStats, VmPool
    from cloche.session.registry import SessionRegistry, Slot

_log = logging.getLogger(__name__)

DEFAULT_LIMIT = 4
"""Sessions of one user on one machine at the same time, unless configured."""


@record
class SessionStats:
    """Counts since the start: sessions that got a VM, were released, were refused by the limit, got no VM."""

    created: int
    released: int
    refused: int
    failed: int
    active: int
    pool: PoolStats


@record(frozen=False)
class _Held:
    session: Session
    slot: Slot
    releasing: asyncio.Task[None] | None = None


class SessionManager:
    """Creates and ends sessions, at most ``limit`` of this user on this machine at a time.

    An async context manager: leaving it releases every session it still has and closes its pool. ``clock``
    gives seconds since the epoch.
    """

    def __init__(
        self,
        pool: VmPool,
        registry: SessionRegistry,
        limit: int = DEFAULT_LIMIT,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pool = pool
        self._registry = registry
        self._limit = limit
        self._clock = clock
        self._held: dict[str, _Held] = {}
        self._created = 0
        self._released = 0
        self._refused = 0
        self._failed = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about its VMs."""
        return self._pool.notes

    async def create_session(self, context: SessionContext) -> Session:
        """Take a place, then a VM, and bind them.

        Raises SessionLimitReached before any VM is asked for, and what the pool raises when there is no VM:
        then the place is free again.
        """
        session_id = new_session_id()
        slot = await self._take_slot(session_id, context)
        try:
            allocation = await self._pool.allocate(context.spec)
        except BaseException:
            self._failed += 1
            slot.release()
            raise
        now = self._clock()
        session = Session(session_id, context, allocation, started_at=now, last_activity=now)
        self._held[session_id] = _Held(session, slot)
        self._created += 1
        took = format_duration(allocation.duration)
        _log.info("Allocated VM %s in %s for session %s", session.vm_id, took, session_id)
        return session

    async def _take_slot(self, session_id: str, context: SessionContext) -> Slot:
        wanted = ActiveSession(session_id, context.workflow, os.getpid(), self._clock())
        try:
            return await self._registry.add(wanted, self._limit)
        except SessionLimitReached:
            self._refused += 1
            raise

    @contextlib.asynccontextmanager
    async def session(self, context: SessionContext) -> AsyncIterator[Session]:
        """Create a session and release it at the end of the block, whatever happens in it."""
        session = await self.create_session(context)
        try:
            yield session
        finally:
            await self.release_session(session)

    def get(self, session_id: str) -> Session:
        """Return the session of this id. SessionStateError when there is none, or not any more."""
        if session_id not in self._held:
            raise SessionStateError(f"there is no session {session_id}; it may have been released")
        return self._held[session_id].session

    def update_state(self, session: Session, state: SessionState) -> None:
        """Move a session to another state. SessionStateError when its state does not lead there."""
        self.get(session.id)
        if state not in NEXT_STATES[session.state]:
            raise SessionStateError(f"session {session.id} is {session.state} and cannot become {state}")
        session.state = state
        session.last_activity = self._clock()

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
        if held.releasing is None:
            session.state = SessionState.TERMINATING
            session.last_activity = self._clock()
            held.releasing = asyncio.create_task(self._release(held))
        await finish(held.releasing)

    async def _release(self, held: _Held) -> None:
        session = held.session
        try:
            await self._pool.release(session.vm)
        finally:
            held.slot.release()
            del self._held[session.id]
            self._released += 1
        _log.info("Released session %s with VM %s", session.id, session.vm_id)

    def stats(self) -> SessionStats:
        """Return the counts so far."""
        return SessionStats(
            created=self._created,
            released=self._released,
            refused=self._refused,
            failed=self._failed,
            active=len(self._held),
            pool=self._pool.stats,
        )

    async def close(self) -> None:
        """Release every session and close the pool, even when one of them cannot be released."""
        await finish(self._close())

    async def _close(self) -> None:
        sessions = [held.session for held in self._held.values()]
        results = await asyncio.gather(*map(self.release_session, sessions), return_exceptions=True)
        await self._pool.close()
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise failures[0]
