"""The daemon: keeps VMs ready and lends them, one session at a time, to processes of the same user."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import logging
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cloche import __version__
from cloche.daemon.keeping import KeptSession
from cloche.daemon.lending import lend
from cloche.daemon.packets import Packets
from cloche.daemon.wire import CONTROL_SOCKET, LOCK, RUN_SOCKET
from cloche.errors import ClocheError, ProviderError, UsageError
from cloche.events import Conclusion
from cloche.places import DOORS
from cloche.session import SessionContext
from cloche.tasks import finish
from cloche.terminal.visit import clear
from cloche.vm.child import Child
from cloche.vm.provider import VmSpec
from cloche.vm.snapshot import VmSnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Self

    from cloche.daemon.packets import Message
    from cloche.pool import VmPool
    from cloche.session import Session, SessionManager

_log = logging.getLogger(__name__)

_BACKLOG = 128
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
_STEADY = 1.0
_CREDENTIALS = struct.Struct("3i")


class Service:
    """One provider's VMs, as the daemon serves them."""

    def __init__(self, pool: VmPool, sessions: SessionManager) -> None:
        self.pool = pool
        self.sessions = sessions


class Daemon:
    """Serves on sockets in ``folder``, which is private to the user.

    ``make`` makes the service of a provider by name, ``None`` for a provider that is not lent. ``on_run`` hears how
    runs ended, after how many seconds. An async context manager: entering takes the folder's lock and listens,
    leaving ends every VM.
    """

    def __init__(
        self,
        folder: Path,
        make: Callable[[str], Service | None],
        on_run: Callable[[Conclusion, float], None] = lambda _conclusion, _seconds: None,
    ) -> None:
        self._folder = folder
        self._make = make
        self.on_run = on_run
        self._services: dict[str, Service] = {}
        self._borrowers: set[Borrower] = set()
        self._kept: set[KeptSession] = set()
        self._stopping = asyncio.Event()
        self._draining = False
        self._since = time.time()
        self._resources = contextlib.AsyncExitStack()

    # --- life

    async def __aenter__(self) -> Self:
        """Raises UsageError when another daemon has the lock, ProviderError when sockets cannot be made."""
        try:
            self._resources.callback(os.close, _take_lock(self._folder))
            control = self._listen(CONTROL_SOCKET, socket.SOCK_SEQPACKET)
            runs = self._listen(RUN_SOCKET, socket.SOCK_STREAM)
        except OSError as wrong:
            await self._resources.aclose()
            raise ProviderError(f"cannot listen in {self._folder}: {wrong.strerror or wrong}") from wrong
        except BaseException:
            await self._resources.aclose()
            raise
        self._resources.push_async_callback(self._close_services)
        self._resources.push_async_callback(self._end_borrowers)
        self._resources.push_async_callback(self._end_kept)
        self._task(self._accept(control))
        self._task(self._keep_runner(runs))
        return self

    async def __aexit__(self, *_: object) -> None:
        await finish(self._resources.aclose())

    def _listen(self, name: str, kind: socket.SocketKind) -> socket.socket:
        path = self._folder / name
        path.unlink(missing_ok=True)  # a dead daemon's: the lock is ours
        listener = socket.socket(socket.AF_UNIX, kind)
        self._resources.callback(listener.close)
        listener.bind(str(path))
        self._resources.callback(path.unlink, missing_ok=True)
        path.chmod(0o600)
        listener.listen(_BACKLOG)
        return listener

    def _task(self, work: Any) -> None:
        task = asyncio.create_task(work)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._resources.push_async_callback(end)

    async def _close_services(self) -> None:
        await asyncio.gather(*(service.sessions.close() for service in self._services.values()))

    async def _end_borrowers(self) -> None:
        await asyncio.gather(*(borrower.end() for borrower in list(self._borrowers)))

    async def _end_kept(self) -> None:
        await asyncio.gather(*(kept.end() for kept in list(self._kept)))

    async def stopped(self) -> None:
        """Wait until somebody asked the daemon to end, and until its runs have, unless they are not to."""
        await self._stopping.wait()

    def stop(self, *, now: bool) -> None:
        """End as soon as nobody borrows a VM any more; or ``now``."""
        self._draining = True
        if now or not any(borrower.sessions for borrower in self._borrowers):
            self._stopping.set()

    def left(self, borrower: Borrower) -> None:
        """One who borrowed has hung up."""
        self._borrowers.discard(borrower)
        if borrower.pid:
            clear(self._folder.parent / DOORS)  # a run that was killed leaves one
        if self._draining:
            self.stop(now=False)

    # --- clients

    async def _accept(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            user = _CREDENTIALS.unpack(
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )[1]
            if user == os.getuid():
                self._borrowers.add(Borrower(self, Packets(sock)))
            else:
                _log.warning("Refused a connection of user %s", user)
                sock.close()

    async def _keep_runner(self, listener: socket.socket) -> None:
        """Have a runner for ``cloche run``; one that ends is replaced, later and later."""
        pause = _FIRST_PAUSE
        while True:
            descriptor = listener.fileno()
            argv = [
                sys.executable,
                "-m",
                "cloche.cli.runner",
                str(descriptor),
                str(self._folder / CONTROL_SOCKET),
            ]
            started = time.monotonic()
            child = Child.start(argv, [descriptor])
            try:
                code = await child.wait()
            finally:
                await finish(child.kill())
            _log.warning("The runner ended with %s; starting another. %s", code, child.said.strip())
            if time.monotonic() - started > _STEADY:  # it was killed, and did not fail to start
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    # --- what is asked of it

    def service(self, name: str) -> Service | None:
        """Return the service of a provider, made when first asked for; ``None`` when it is not lent."""
        if name not in self._services:
            made = self._make(name)
            if made is None:
                return None
            self._services[name] = made
        return self._services[name]

    async def warm(self, name: str, spec: VmSpec) -> None:
        """Have VMs of a provider and shape ready before anyone asks, and wait until they are.

        UsageError for a provider that is not lent, and what making them raises.
        """
        service = self.service(name)
        if service is None:
            raise UsageError(
                f"VMs of the provider {name!r} cannot be lent", hint="--vm auto, qemu or sandbox"
            )
        await service.pool.warm([spec])
        await service.pool.at_target()

    def check_taking(self) -> None:
        """ProviderError while the daemon is about to end."""
        if self._draining:
            raise ProviderError(
                "the daemon is ending and lends no more VMs", hint="cloche up, once it is down"
            )

    def status(self) -> dict[str, Any]:
        """Return what ``cloche status`` shows."""
        return {
            "pid": os.getpid(),
            "version": __version__,
            "since": self._since,
            "draining": self._draining,
            "providers": {name: _told(service) for name, service in self._services.items()},
            "sessions": [
                {
                    "id": session.id,
                    "workflow": session.context.workflow,
                    "vm": session.vm_id,
                    "provider": session.vm_type,
                    "since": session.started_at,
                    "pid": borrower.pid,
                }
                for borrower in self._borrowers
                for _, session in borrower.sessions.values()
            ]
            + [kept.status() for kept in self._kept],
        }

    async def keep(self, session: Session, sessions: SessionManager, message: Message) -> None:
        """Have a session that its run has done with for a while. ClocheError where that cannot be."""
        kept = KeptSession(session, sessions, message, self._kept.discard)
        await kept.begin(self._folder.parent / DOORS)
        self._kept.add(kept)


def _told(service: Service) -> dict[str, Any]:
    return dataclasses.asdict(service.sessions.stats())


def _take_lock(folder: Path) -> int:
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UsageError(
            "a daemon of yours is up already", hint="cloche status; cloche down ends it"
        ) from None
    return descriptor


class Borrower:
    """One connection: what it asks, and the sessions it has, which end with it."""

    def __init__(self, daemon: Daemon, packets: Packets) -> None:
        self._daemon = daemon
        self._packets = packets
        self.sessions: dict[str, tuple[Service, Session]] = {}
        self.pid = 0
        self._asked: dict[int, asyncio.Task[None]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._task = asyncio.create_task(self._serve())

    async def end(self) -> None:
        """Hang up, and take back what was lent."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self) -> None:
        try:
            while received := await self._packets.receive():
                message, descriptors = received
                for descriptor in descriptors:
                    os.close(descriptor)
                self._begin(message)
        except ClocheError as error:
            _log.warning("%s", error.message)
        finally:
            await finish(self._leave())

    async def _leave(self) -> None:
        for task in self._asked.values():
            task.cancel()
        await asyncio.gather(*self._asked.values(), *self._telling, return_exceptions=True)
        releases = [service.sessions.release_session(session) for service, session in self.sessions.values()]
        for problem in await asyncio.gather(*releases, return_exceptions=True):
            if problem is not None:
                _log.error("%s", problem)
        self.sessions.clear()
        self._packets.close()
        self._daemon.left(self)

    def _begin(self, message: Message) -> None:
        if message.get("op") == "cancel":
            task = self._asked.get(message.get("which", 0))
            if task is not None:
                task.cancel()
            return
        number = message.get("n", 0)
        task = asyncio.create_task(self._answer(number, message))
        self._asked[number] = task
        task.add_done_callback(lambda _: self._asked.pop(number, None))

    async def _answer(self, number: int, message: Message) -> None:
        descriptors: list[int] = []
        try:
            operation = self._operations.get(str(message.get("op")))
            if operation is None:
                raise UsageError(f"the daemon knows no {message.get('op')!r}", hint="cloche down; cloche up")
            answer = await operation(self, message, descriptors)
        except ClocheError as error:
            answer = _failure(type(error).__name__, error.message, error.hint)
        except asyncio.CancelledError:
            answer = _failure("ProviderError", "the request was cancelled", None)
        except (KeyError, TypeError, ValueError) as error:
            answer = _failure("UsageError", f"the daemon does not understand: {error!r}", None)
        try:
            if answer is not None:
                await self._send({"n": number, **answer}, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    # --- operations

    async def _hello(self, message: Message, _descriptors: list[int]) -> Mapping[str, Any]:
        service = self._daemon.service(message["provider"])
        return {"served": service is not None, "notes": list(service.pool.notes) if service else []}

    async def _create(self, message: Message, descriptors: list[int]) -> Mapping[str, Any]:
        self._daemon.check_taking()
        service = self._daemon.service(message["provider"])
        if service is None:
            raise ProviderError(f"the daemon lends no VMs of the provider {message['provider']!r}")
        self.pid = int(message["pid"])
        number = message["n"]
        context = SessionContext(
            str(message["workflow"]),
            VmSpec(**message["spec"]),
            on_wait=lambda waiting: self._tell(n=number, news="waiting", waiting=dataclasses.asdict(waiting)),
            snapshot=VmSnapshot.load(Path(message["snapshot"])) if message.get("snapshot") else None,
        )
        session = await service.sessions.create_session(
            context, limit=message.get("limit"), wait=message.get("wait")
        )
        session.on_loss = lambda why: self._tell(news="lost", session=session.id, why=why)
        try:
            told, descriptor = lend(session)
        except BaseException:
            await service.sessions.release_session(session)
            raise
        self.sessions[session.id] = (service, session)
        descriptors.append(descriptor)
        return told

    def _tell(self, **news: object) -> None:
        task = asyncio.create_task(self._send(news))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        try:
            await self._packets.send(message, descriptors)
        except ClocheError as gone:
            _log.warning("%s", gone.message)

    async def _touch(self, message: Message, _descriptors: list[int]) -> None:
        service, session = self.sessions[message["session"]]
        service.sessions.touch(session)

    async def _ran(self, message: Message, _descriptors: list[int]) -> None:
        conclusion, seconds = message["conclusion"], float(message["seconds"])
        if conclusion in get_args(Conclusion) and 0 <= seconds < float("inf"):
            self._daemon.on_run(conclusion, seconds)

    async def _snapshot(self, message: Message, _descriptors: list[int]) -> Mapping[str, Any]:
        service, session = self.sessions[message["session"]]
        await service.sessions.snapshot(session, Path(message["folder"]), int(message["number"]))
        return {}

    async def _restore(self, message: Message, descriptors: list[int]) -> Mapping[str, Any]:
        service, session = self.sessions[message["session"]]
        await service.sessions.restore(session, VmSnapshot.load(Path(message["folder"])))
        told, descriptor = lend(session)
        descriptors.append(descriptor)
        return told

    async def _keep(self, message: Message, _descriptors: list[int]) -> Mapping[str, Any]:
        service, session = self.sessions[message["session"]]
        self._daemon.check_taking()
        await self._daemon.keep(session, service.sessions, message)
        del self.sessions[session.id]
        return {}

    async def _release(self, message: Message, _descriptors: list[int]) -> Mapping[str, Any]:
        service, session = self.sessions.pop(message["session"])
        await service.sessions.release_session(session)
        return {}

    async def _status(self, _message: Message, _descriptors: list[int]) -> Mapping[str, Any]:
        return self._daemon.status()

    async def _down(self, message: Message, _descriptors: list[int]) -> Mapping[str, Any]:
        self._daemon.stop(now=bool(message.get("now")))
        return self._daemon.status()

    _operations = {  # noqa: RUF012 - read only
        "hello": _hello, "create": _create, "touch": _touch, "ran": _ran, "snapshot": _snapshot, "restore": _restore,
        "keep": _keep, "release": _release, "status": _status, "down": _down,
    }  # fmt: skip


def _failure(kind: str, message: str, hint: str | None) -> Mapping[str, Any]:
    return {"error": {"kind": kind, "message": message, "hint": hint}}
