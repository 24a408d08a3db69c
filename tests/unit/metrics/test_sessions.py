"""Sessions measured from outside tell what their manager would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloche.errors import ProviderError, SessionLimitReached
from cloche.metrics import MeasuredSessions
from cloche.pool import VmPool
from cloche.session import SessionContext, SessionManager, SessionRegistry, SessionState
from cloche.session.events import Created, Failed, Refused, Released
from cloche.vm.fake import FakeProvider

if TYPE_CHECKING:
    from pathlib import Path

    from cloche.session.events import SessionEvent
    from cloche.vm.provider import VmSpec


async def refuse(_spec: VmSpec, number: int) -> None:
    if number == 2:
        raise ProviderError("no room")


async def test_the_same_records_as_a_managers(tmp_path: Path) -> None:
    inner: list[SessionEvent] = []
    outer: list[SessionEvent] = []
    pool = VmPool(FakeProvider(on_allocate=refuse))
    async with SessionManager(pool, SessionRegistry(tmp_path), 1, observer=inner.append) as manager:
        sessions = MeasuredSessions(manager, outer.append)
        session = await sessions.create_session(SessionContext("CI"))
        sessions.update_state(session, SessionState.ACTIVE)
        sessions.touch(session)
        with pytest.raises(SessionLimitReached):
            await sessions.create_session(SessionContext("CI"))
        await sessions.release_session(session)
        await sessions.release_session(session)  # again is fine, and no second end
        with pytest.raises(ProviderError):
            await sessions.create_session(SessionContext("CI"))
    assert [type(event) for event in outer] == [type(event) for event in inner]
    made, refused, released, failed = outer
    assert isinstance(made, Created)
    assert (made.session_id, made.vm_id, made.image, made.source) == (
        session.id,
        session.vm_id,
        "default",
        "booted",
    )
    assert (made.active, refused.active, released.active, failed.active) == (1, 1, 0, 0)  # type: ignore[union-attr] # each has it
    assert isinstance(refused, Refused)
    assert isinstance(released, Released)
    assert released.clean
    assert isinstance(failed, Failed)
    assert failed.reason == "ProviderError"
