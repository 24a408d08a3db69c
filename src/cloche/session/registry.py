"""The sessions of this user on this machine, all processes together.

One file per session, locked by the process that owns it: a lock ends with its owner, however that ends, so
a file whose lock is free belongs to nobody and is removed on sight. Whoever looks or adds holds the folder's
own lock meanwhile, which makes "is there room? then take it" one step.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from cloche.errors import ProviderError, SessionLimitReached
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

LOCK_TIMEOUT = 10.0
"""Seconds to wait for the folder's lock, which is only ever held for an instant."""
_FIRST_PAUSE = 0.001
_LONGEST_PAUSE = 0.05
_MAX_FILE = 64 * 1024


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


class Slot:
    """A place among the sessions of this machine, held until released or until this process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Give the place back; again is fine."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


class SessionRegistry:
    """The files in ``directory``, which is made (mode 0700) when first needed."""

    def __init__(self, directory: Path, *, lock_timeout: float = LOCK_TIMEOUT) -> None:
        self._directory = directory
        self._lock_timeout = lock_timeout

    async def add(self, session: ActiveSession, limit: int) -> Slot:
        """Take a place for a session.

        Raises SessionLimitReached when ``limit`` sessions are active, and ProviderError when the folder
        cannot be used or its lock is not free within the deadline.
        """
        async with self._locked():
            active, _ = self._look()
            if len(active) >= limit:
                raise _limit_reached(limit, active)
            path = self._directory / f"{session.id}.json"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            slot = Slot(path, descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(descriptor, json.dumps(asdict(session)).encode())
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
        for path in sorted(self._directory.glob("sess-*.json")):
            with _opened(path) as descriptor:
                if descriptor is None:
                    continue
                session = _read(path, descriptor)
                if _try_lock(descriptor):
                    path.unlink(missing_ok=True)
                    dead.append(session)
                else:
                    living.append(session)
        return sorted(living, key=lambda session: session.since), dead


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


def _read(path: Path, descriptor: int) -> ActiveSession:
    """Read what a file tells; a damaged one still tells its id."""
    try:
        told = json.loads(os.pread(descriptor, _MAX_FILE, 0))
        return ActiveSession(path.stem, str(told["workflow"]), int(told["pid"]), float(told["since"]))
    except (ValueError, KeyError, TypeError):
        return ActiveSession(path.stem, "?", 0, 0.0)


def _limit_reached(limit: int, active: list[ActiveSession]) -> SessionLimitReached:
    which = "\n".join(f"  {session}" for session in active)
    noun = "session" if limit == 1 else "sessions"
    return SessionLimitReached(
        f"the limit of {limit} concurrent {noun} is reached; active on this machine:\n{which}"
        if active
        else f"the limit of concurrent sessions is {limit}: none may start",
        hint="wait for one to finish, interrupt its process, or raise [session] max_concurrent in"
        " ~/.config/cloche/config.toml (CLOCHE_SESSION_MAX_CONCURRENT)",
    )
