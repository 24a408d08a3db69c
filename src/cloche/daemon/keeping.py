"""Sessions whose runs have ended and whose VMs are kept for a while: the daemon's own, for `cloche shell`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from cloche.daemon.packets import Packets
from cloche.daemon.wire import LONGEST_KEPT
from cloche.errors import ClocheError, ProviderError, UsageError
from cloche.session import SessionStateError
from cloche.tasks import finish
from cloche.terminal.door import Door, House
from cloche.terminal.rooms import Room
from cloche.vm.channel import AgentClient
from cloche.vm.guest import ExecSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from cloche.daemon.packets import Message
    from cloche.session import Session, SessionManager

_log = logging.getLogger(__name__)

TOUCH_INTERVAL = 30.0
_MAX_ROOMS = 256


class KeptSession:
    """A session that the daemon has for itself until its time is up; ``gone`` is told when it has been released."""

    def __init__(
        self,
        session: Session,
        sessions: SessionManager,
        message: Message,
        gone: Callable[[KeptSession], None],
    ) -> None:
        """UsageError, KeyError, TypeError or ValueError for what does not say what is to be kept."""
        seconds = float(message["seconds"])
        if not 0 < seconds <= LONGEST_KEPT:
            raise UsageError("a VM can be kept for 24 hours at most", hint="--on-failure keep=24h")
        self.session = session
        self.run = str(message["run"])
        self.until = time.time() + seconds
        self._workflow = str(message["workflow"])
        self._told = [dict(room) for room in message["rooms"]][:_MAX_ROOMS]
        self._number = int(message["number"])
        self._seconds = seconds
        self._sessions = sessions
        self._gone = gone
        self._guest: AgentClient | None = None
        self._rooms: list[Room] = []
        self._door: Door | None = None
        self._task: asyncio.Task[None] | None = None

    async def begin(self, doors: Path) -> None:
        """Take the guest back and open the door. ClocheError where that cannot be: the session is as it was then."""
        lent = self.session.vm.guest
        if not isinstance(lent, AgentClient):
            raise ProviderError("this VM cannot be kept")
        guest = self._guest = await lent.take_back(self._number)
        try:
            await guest.ping()
            self._rooms = [_room(guest, told) for told in self._told]
            self._door = Door(doors / self.run, House(self._about, lambda: self._rooms, self.end), Packets)
        except BaseException as wrong:
            await guest.close()
            if isinstance(wrong, OSError):
                raise ProviderError(f"no door can be made in {doors}: {wrong.strerror}") from wrong
            raise
        self.session.on_loss = lambda _why: self._stop()
        self._task = asyncio.create_task(self._last())

    def _about(self) -> Mapping[str, Any]:
        vm = self.session.vm_id
        return {"run": self.run, "workflow": self._workflow, "vm": vm, "kept_until": self.until}

    def status(self) -> Mapping[str, Any]:
        """Return what ``cloche status`` shows of it."""
        session = self.session
        return {
            "id": session.id, "workflow": self._workflow, "vm": session.vm_id, "provider": session.vm_type,
            "since": session.started_at, "pid": None, "run": self.run, "kept_until": self.until,
        }  # fmt: skip

    async def end(self) -> None:
        """Release the session now; again is fine."""
        self._stop()
        if self._task is not None:
            await asyncio.wait({self._task})

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _last(self) -> None:
        """Keep the session until its time is up, its guest is gone, or somebody ends it; then release it."""
        assert self._guest is not None  # noqa: S101 - begin comes first
        lost = asyncio.create_task(self._guest.lost())
        why = "it was given back"
        try:
            async with asyncio.timeout(self._seconds):
                while not lost.done():
                    await asyncio.wait({lost}, timeout=TOUCH_INTERVAL)
                    self._sessions.touch(self.session)
            why = lost.result().message
        except TimeoutError:
            why = "its time is up"
        except SessionStateError:
            why = "its session has been taken away"
        finally:
            lost.cancel()
            await finish(self._release(why))

    async def _release(self, why: str) -> None:
        _log.info("VM %s of %s is kept no longer: %s", self.session.vm_id, self.run, why)
        try:
            if self._door is not None:
                await self._door.close(f"the VM is kept no longer: {why}")
            if self._guest is not None:
                await self._guest.close()
            with contextlib.suppress(SessionStateError):
                await self._sessions.release_session(self.session)
        except ClocheError as wrong:
            _log.error("%s", wrong.message)
        finally:
            self._gone(self)


def _room(guest: AgentClient, told: Mapping[str, Any]) -> Room:
    env = {str(name): str(value) for name, value in dict(told["env"]).items()}
    user = None if told["user"] is None else str(told["user"])
    step = ExecSpec(argv=(), env=env, cwd=str(told["cwd"]), user=user)
    root = guest.reopen_job(str(told["root"]))
    return Room(str(told["job"]), str(told["step"]), root, lambda: step, id=str(told.get("id", "")))
