"""Sessions, measured where they are asked for: the same figures whoever makes them, a manager here or a daemon."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from cloche.errors import SessionLimitReached
from cloche.session.events import Created, Failed, Refused, Released

if TYPE_CHECKING:
    from pathlib import Path

    from cloche.session import Session, SessionContext, SessionState
    from cloche.session.events import SessionObserver
    from cloche.vm.snapshot import VmSnapshot


class Sessions(Protocol):
    """What an executor needs of a session manager."""

    async def create_session(self, context: SessionContext) -> Session:
        """Bind a run to a VM."""

    async def release_session(self, session: Session) -> None:
        """End the session and its VM."""

    def update_state(self, session: Session, state: SessionState) -> None:
        """Move the session to another state."""

    def touch(self, session: Session) -> None:
        """Note that the session is in use."""

    async def snapshot(self, session: Session, folder: Path) -> VmSnapshot:
        """Keep what the session's VM is now."""


class MeasuredSessions:
    """``sessions``, telling ``observer`` what a session manager of this process would tell."""

    def __init__(self, sessions: Sessions, observer: SessionObserver) -> None:
        self._sessions = sessions
        self._observer = observer
        self._since: dict[str, float] = {}

    async def create_session(self, context: SessionContext) -> Session:
        """See SessionManager."""
        asked = time.monotonic()
        try:
            session = await self._sessions.create_session(context)
        except SessionLimitReached:
            self._observer(Refused(0, time.monotonic() - asked, len(self._since)))
            raise
        except BaseException as error:
            seconds = time.monotonic() - asked
            self._observer(Failed(type(error).__name__, "", context.spec.image, seconds, len(self._since)))
            raise
        now = self._since[session.id] = time.monotonic()
        allocation = session.allocation
        told = Created(
            session.id,
            session.vm_id,
            session.vm_type,
            context.spec.image,
            allocation.source,
            seconds=allocation.duration,
            waited=max(now - asked - allocation.duration, 0.0),
            active=len(self._since),
        )
        self._observer(told)
        return session

    async def release_session(self, session: Session) -> None:
        """See SessionManager."""
        clean = False
        try:
            await self._sessions.release_session(session)
            clean = True
        finally:
            since = self._since.pop(session.id, None)
            if since is not None:
                lived = time.monotonic() - since
                active = len(self._since)
                self._observer(Released(session.id, session.vm_id, session.vm_type, lived, clean, active))

    def update_state(self, session: Session, state: SessionState) -> None:
        """See SessionManager."""
        self._sessions.update_state(session, state)

    def touch(self, session: Session) -> None:
        """See SessionManager."""
        self._sessions.touch(session)

    async def snapshot(self, session: Session, folder: Path) -> VmSnapshot:
        """See SessionManager."""
        return await self._sessions.snapshot(session, folder)
