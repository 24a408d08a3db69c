"""The sessions of this user on this machine, all processes together.

One file per session, locked by the process that owns it: a lock ends with its owner, however that ends, so
a file whose lock is free belongs to nobody and is removed on sight. Whoever looks or adds holds the folder's
own lock meanwhile, which makes "is there room? then take it" one step.

Who waits for a place has a file too, numbered in the order of asking and locked likewise. Everybody goes by one
rule: there is room for you when the active sessions and those who asked before you are fewer than your limit. So
nobody overtakes, and a waiter that died, or is frozen past its own deadline, holds up nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from cloche.errors import ProviderError, SessionLimitReached
from cloche.records import record
from cloche.units import format_duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

LOCK_TIMEOUT = 10.0
"""Seconds to wait for the folder's lock, which is only ever held for an instant."""
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05
_MAX_FILE = 64 * 1024
_SHORTEST_LOOK, _LOOK_FOR_EACH, _LONGEST_LOOK = 0.1, 0.05, 2.0
"""Seconds between two looks of a waiter: the nearer its turn, the more often."""
_OVERDUE = 10.0
"""Seconds past its own deadline after which a waiter no longer counts: its process must be stopped."""


@record
class ActiveSession:
    """A session as its file tells of it; ``since`` is seconds since the epoch."""

    id: str
    workflow: str
    pid: int
    since: float

    def __str__(self) -> str:
        since = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"{self.id} (workflow {self.workflow!r}, process {self.pid}, since {since})"


@record
class Waiting:
    """What a waiter is told whenever it moves up: its ``place`` (1 is next), and what it waits for."""

    place: int
    limit: int
    active: int


class Slot:
    """A place among the sessions of this machine, held until released or until this process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Give the place back; again is fine."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


class _File(NamedTuple):
    path: Path
    told: dict[str, Any]
    lives: bool


class SessionRegistry:
    """The files in ``directory``, which is made (mode 0700) when first needed."""

    def __init__(self, directory: Path, *, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self._directory = directory
        self._lock_timeout = lock_timeout

    async def add(
        self,
        session: ActiveSession,
        limit: int,
        *,
        patience: float = 0.0,
        tell: Callable[[Waiting], None] | None = None,
    ) -> Slot:
        """Take a place for a session; wait for one up to ``patience`` seconds, in the order of asking.

        Raises SessionLimitReached when ``limit`` sessions are active, or were for so long, and ProviderError
        when the folder cannot be used or its lock is not free within the deadline.
        """
        async with self._locked():
            active, _ = self._look()
            waiting = self._waiters()
            if len(active) + len(waiting) < limit:
                return self._enter(session)
            if patience <= 0:
                raise _limit_reached(limit, active, len(waiting))
            ticket = self._line_up(session, patience, waiting)
        try:
            return await self._wait(ticket, session, limit, patience, tell)
        finally:
            ticket.release()

    async def _wait(
        self,
        ticket: Slot,
        session: ActiveSession,
        limit: int,
        patience: float,
        tell: Callable[[Waiting], None] | None,
    ) -> Slot:
        started = time.monotonic()
        told = None
        while True:
            async with self._locked():
                active, _ = self._look()
                ahead = sum(path.name < ticket.path.name for path in self._waiters())
                if len(active) + ahead < limit:
                    ticket.release()
                    return self._enter(session)
            waited = time.monotonic() - started
            if waited >= patience:
                raise _limit_reached(limit, active, ahead, waited)
            if tell and ahead != told:
                tell(Waiting(ahead + 1, limit, len(active)))
                told = ahead
            look = min(_SHORTEST_LOOK + ahead * _LOOK_FOR_EACH, _LONGEST_LOOK)
            await asyncio.sleep(min(look, patience - waited))

    def _enter(self, session: ActiveSession) -> Slot:
        return self._write(f"{session.id}.json", asdict(session))

    def _line_up(self, session: ActiveSession, patience: float, waiting: list[Path]) -> Slot:
        number = int(waiting[-1].name.split("-")[1]) + 1 if waiting else 1
        until = time.time() + patience
        return self._write(f"wait-{number:012d}-{session.id}.json", {**asdict(session), "until": until})

    def _write(self, name: str, content: dict[str, object]) -> Slot:
        path = self._directory / name
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        slot = Slot(path, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(descriptor, json.dumps(content).encode())
        except BaseException:
            slot.release()
            raise
        return slot

    async def active(self) -> list[ActiveSession]:
        """List the sessions whose owners live, oldest first; files of dead owners are removed."""
        async with self._locked():
            return self._look()[0]

    async def collect(self) -> list[ActiveSession]:
        """Remove the files of dead owners; answer with what they told."""
        async with self._locked():
            return self._look()[1]

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as wrong:
            raise ProviderError(
                f"cannot keep count of sessions in {self._directory}: {wrong.strerror}",
                hint="set XDG_RUNTIME_DIR to a folder of yours",
            ) from wrong
        try:
            await self._take(descriptor)
            try:
                yield
            except OSError as wrong:
                raise ProviderError(
                    f"cannot keep count of sessions in {self._directory}: {wrong.strerror}"
                ) from wrong
        finally:
            os.close(descriptor)

    async def _take(self, descriptor: int) -> None:
        deadline = time.monotonic() + self._lock_timeout
        pause = _FIRST_PAUSE
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise ProviderError(
                    f"another process has held the lock on {self._directory} for {self._lock_timeout:g} s",
                    hint=f"`fuser {self._directory}` names it",
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _look(self) -> tuple[list[ActiveSession], list[ActiveSession]]:
        """Tell the living from the dead, and remove the dead."""
        living: list[ActiveSession] = []
        dead: list[ActiveSession] = []
        for path, told, lives in self._files("sess-*.json"):
            (living if lives else dead).append(_session(path, told))
        return sorted(living, key=lambda session: session.since), dead

    def _waiters(self) -> list[Path]:
        """Return the files of those who wait, in the order of asking."""
        overdue = time.time() - _OVERDUE
        return [
            path
            for path, told, lives in self._files("wait-*.json")
            if lives and isinstance(until := told.get("until"), float) and until > overdue
        ]

    def _files(self, pattern: str) -> Iterator[_File]:
        """Yield the files, in the order of their names; those whose owners are dead are removed."""
        for path in sorted(self._directory.glob(pattern)):
            with _opened(path) as descriptor:
                if descriptor is None:
                    continue
                told = _read(descriptor)
                lives = not _try_lock(descriptor)
                if not lives:
                    path.unlink(missing_ok=True)
                yield _File(path, told, lives)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """Open a session's file; ``None`` if it went away meanwhile."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> dict[str, Any]:
    try:
        told = json.loads(os.pread(descriptor, _MAX_FILE, 0))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _session(path: Path, told: dict[str, Any]) -> ActiveSession:
    """Return what a session's file tells; a damaged one still tells its id."""
    try:
        return ActiveSession(path.stem, str(told["workflow"]), int(told["pid"]), float(told["since"]))
    except (ValueError, KeyError, TypeError):
        return ActiveSession(path.stem, "?", 0, 0.0)


def _limit_reached(
    limit: int, active: list[ActiveSession], waiting: int, waited: float | None = None
) -> SessionLimitReached:
    which = "\n".join(f"  {session}" for session in active)
    noun = "session" if limit == 1 else "sessions"
    queue = f"\n{waiting} more waiting for a place" if waiting else ""
    stood = (
        "is reached"
        if waited is None
        else f"was reached for {format_duration(waited)}, as long as was to be waited"
    )
    return SessionLimitReached(
        f"the limit of {limit} concurrent {noun} {stood}; active on this machine:\n{which}{queue}"
        if active or waiting
        else f"the limit of concurrent sessions is {limit}: none may start",
        hint=f"{'wait for one to finish (--wait)' if waited is None else 'wait longer'}, interrupt its process, or"
        " raise [session] max_concurrent in ~/.config/cloche/config.toml (CLOCHE_SESSION_MAX_CONCURRENT)",
    )
