"""Sessions whose VMs are the daemon's: what the executor is given in place of a session manager."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from cloche import errors
from cloche.daemon.lending import LentVm, borrow, borrow_guest, spec_fields
from cloche.daemon.packets import connect
from cloche.errors import ClocheError, ProviderError
from cloche.events import RunFinished
from cloche.session.model import NEXT_STATES, SessionState, SessionStateError
from cloche.session.registry import Waiting
from cloche.tasks import finish
from cloche.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from cloche.daemon.packets import Message, Packets
    from cloche.events import Event
    from cloche.session import Session, SessionContext
    from cloche.vm.snapshot import VmSnapshot

_log = logging.getLogger("cloche.session.manager")
CONNECT_DEADLINE = 10.0
RELEASE_DEADLINE = 60.0
"""Seconds for the daemon to take a VM back; it takes it at once and cleans it later."""
_CANCEL_DEADLINE = 10.0
_LAST_WORDS = 1.0
TOUCH_INTERVAL = 10.0
"""Seconds between two words to the daemon that a session is in use."""


class LentSessions:
    """Creates and releases sessions at the daemon. An async context manager: leaving it gives all back."""

    def __init__(self, packets: Packets, provider: str, options: Mapping[str, Any]) -> None:
        self._packets = packets
        self._provider = provider
        self._options = options
        self._number = 0
        self._answers: dict[int, asyncio.Future[tuple[Message, list[int]]]] = {}
        self._held: dict[str, Session] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._waiting: dict[int, SessionContext] = {}
        self._reader = asyncio.create_task(self._read())
        self._lost: ProviderError | None = None
        self.notes: tuple[str, ...] = ()

    @classmethod
    async def open(cls, path: str, provider: str, options: Mapping[str, Any]) -> Self | None:
        """Connect to the daemon's control socket; ``None`` when it does not serve this provider.

        ``options`` go with each session that is asked for. ProviderError when no daemon answers.
        """
        sessions = cls(await connect(path, CONNECT_DEADLINE), provider, options)
        try:
            answer, _ = await sessions._ask({"op": "hello", "provider": provider})
        except BaseException:
            await sessions.close()
            raise
        if not answer["served"]:
            await sessions.close()
            return None
        sessions.notes = tuple(answer["notes"])
        return sessions

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def create_session(self, context: SessionContext) -> Session:
        """See SessionManager; raises what the daemon's raises."""
        self._number += 1
        number = self._number
        request = {
            "op": "create", "provider": self._provider, "workflow": context.workflow,
            "spec": spec_fields(context.spec), "pid": os.getpid(), **self._options,
            "snapshot": str(context.snapshot.folder) if context.snapshot else None,
        }  # fmt: skip
        asking = asyncio.ensure_future(self._ask(request, number))
        self._waiting[number] = context
        try:
            told, descriptors = await asyncio.shield(asking)
        except asyncio.CancelledError:
            await finish(self._cancel(number, asking))
            raise
        finally:
            del self._waiting[number]
        session = await borrow(told, descriptors[0], context)
        self._held[session.id] = session
        took = format_duration(session.allocation.duration)
        _log.info("Allocated VM %s in %s for session %s", session.vm_id, took, session.id)
        return session

    async def _cancel(self, number: int, asking: asyncio.Future[tuple[Message, list[int]]]) -> None:
        """Ask for the session no longer; one that was made meanwhile goes back."""
        with contextlib.suppress(ClocheError, TimeoutError):
            await self._packets.send({"op": "cancel", "n": 0, "which": number})
            told, descriptors = await asyncio.wait_for(asking, _CANCEL_DEADLINE)
            for descriptor in descriptors:
                os.close(descriptor)
            await self._ask({"op": "release", "session": told["session"]})

    async def snapshot(self, session: Session, folder: Path) -> VmSnapshot:
        """See SessionManager."""
        from cloche.vm.snapshot import VmSnapshot

        number = self._lent(session).guest.pause()
        await self._ask({"op": "snapshot", "session": session.id, "folder": str(folder), "number": number})
        session.snapshots += (folder.name,)
        return VmSnapshot.load(folder)

    async def restore(self, session: Session, snapshot: VmSnapshot) -> None:
        """See SessionManager."""
        vm = self._lent(session)
        await vm.guest.close()
        request = {"op": "restore", "session": session.id, "folder": str(snapshot.folder)}
        told, descriptors = await self._ask(request)
        vm.guest = await borrow_guest(told, descriptors[0])

    def _lent(self, session: Session) -> LentVm:
        if session.id not in self._held or not isinstance(session.vm, LentVm):
            raise SessionStateError(f"there is no session {session.id}; it may have been released")
        return session.vm

    def touch(self, session: Session) -> None:
        """See SessionManager; the daemon hears of it now and then."""
        now = time.time()
        if now - session.last_activity > TOUCH_INTERVAL and self._lost is None:
            session.last_activity = now
            self._tell({"op": "touch", "session": session.id})

    def __call__(self, event: Event) -> None:
        """Let the daemon, whose metrics count runs, hear how one ended: be a subscriber of its events."""
        if isinstance(event, RunFinished) and self._lost is None:
            self._tell({"op": "ran", "conclusion": event.conclusion, "seconds": event.duration_ms / 1000})

    def _tell(self, message: Mapping[str, Any]) -> None:
        """Send what needs no answer."""
        task = asyncio.create_task(self._packets.send({"n": 0, **message}))
        self._telling.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling.discard(task)
        if not task.cancelled():
            task.exception()  # a daemon that is gone is noticed where its answers are read

    def update_state(self, session: Session, state: SessionState) -> None:
        """See SessionManager."""
        if state not in NEXT_STATES[session.state]:
            raise SessionStateError(f"session {session.id} is {session.state} and cannot become {state}")
        session.state = state
        self.touch(session)

    async def release_session(self, session: Session) -> None:
        """See SessionManager. A daemon that is gone has ended its VMs: nothing is left to release."""
        if self._held.pop(session.id, None) is None:
            return
        session.state = SessionState.TERMINATING
        await finish(self._release(session))
        _log.info("Released session %s with VM %s", session.id, session.vm_id)

    async def keep(self, session: Session, request: Mapping[str, Any]) -> None:
        """Give a session back for the daemon to keep; ``request`` tells of its run. ProviderError, GuestError.

        Where it cannot be kept it is still to be released.
        """
        assert isinstance(session.vm, LentVm)  # noqa: S101 - made by create_session
        if self._lost is not None:
            raise self._lost
        number = session.vm.guest.give_back()
        try:
            async with asyncio.timeout(RELEASE_DEADLINE):
                await self._ask({**request, "op": "keep", "session": session.id, "number": number})
        except TimeoutError:
            raise ProviderError(f"the daemon did not answer within {RELEASE_DEADLINE:g} s") from None
        self._held.pop(session.id, None)
        _log.info("Session %s with VM %s is kept", session.id, session.vm_id)

    async def _release(self, session: Session) -> None:
        assert isinstance(session.vm, LentVm)  # noqa: S101 - made by create_session
        await session.vm.guest.close()
        try:
            async with asyncio.timeout(RELEASE_DEADLINE):
                await self._ask({"op": "release", "session": session.id})
        except ProviderError:
            if self._lost is None:
                raise

    async def close(self) -> None:
        """Release every session and hang up."""
        await finish(self._close())

    async def _close(self) -> None:
        held = list(self._held.values())
        await asyncio.gather(*map(self.release_session, held), return_exceptions=True)
        if self._telling:
            await asyncio.wait(self._telling, timeout=_LAST_WORDS)
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._packets.close()

    # --- the wire

    async def _ask(self, request: Mapping[str, Any], number: int | None = None) -> tuple[Message, list[int]]:
        if number is None:
            self._number += 1
            number = self._number
        if self._lost is not None:
            raise self._lost
        future = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        try:
            await self._packets.send({**request, "n": number})
            answer, descriptors = await future
        finally:
            del self._answers[number]
        if "error" in answer:
            raise _error(answer["error"])
        return answer, descriptors

    async def _read(self) -> None:
        lost = ProviderError(
            "the daemon has ended, and its VMs with it", hint="cloche up starts it again; its log says why"
        )
        try:
            while received := await self._packets.receive():
                answer, descriptors = received
                if "news" in answer:
                    self._hear(answer)
                    continue
                future = self._answers.get(answer.get("n", 0))
                if future is None or future.done():
                    for descriptor in descriptors:
                        os.close(descriptor)
                else:
                    future.set_result((answer, descriptors))
        except ProviderError as nonsense:
            lost = nonsense
        self._lost = lost
        for future in self._answers.values():
            if not future.done():
                future.set_exception(lost)

    def _hear(self, told: Message) -> None:
        """The daemon tells what nobody asked: a place in the line, or that a session was taken away."""
        context = self._waiting.get(told.get("n", 0))
        session = self._held.get(str(told.get("session")))
        if told["news"] == "waiting" and context and context.on_wait:
            context.on_wait(Waiting(**told["waiting"]))
        elif told["news"] == "lost" and session and session.on_loss:
            session.on_loss(str(told["why"]))


def _error(told: Mapping[str, Any]) -> ClocheError:
    """Return the daemon's error as it was raised there."""
    kind = getattr(errors, str(told.get("kind")), None)
    usable = isinstance(kind, type) and issubclass(kind, ClocheError) and kind is not errors.WorkflowError
    made: ClocheError = (kind if usable else ProviderError)(told["message"], hint=told["hint"])  # type: ignore[misc] # seen to be one
    return made
