"""A socket by which other processes of the same user come to a shell in a guest that this process has.

One packet is one JSON object. Who comes asks ``{"op": "look"}`` for what there is, or ``{"op": "enter", "job": …,
"size": [rows, columns] | null, "terminal": …}`` with one end of a stream socket beside it, which carries what is
typed and shown; then only ``{"op": "size", "size": […]}``. The answer to the latter is ``{"room": …}`` and at the
end ``{"code": …}``, or ``{"error": {…}}`` when there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, Protocol

from cloche.errors import ClocheError, GuestError, UsageError
from cloche.records import record
from cloche.terminal.joining import join
from cloche.terminal.rooms import shell
from cloche.vm.guest import TtySize

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from cloche.terminal.rooms import Room
    from cloche.vm.guest import ExitStatus, Process

    Message = Mapping[str, Any]

ASK_DEADLINE = 10.0
"""Seconds for who comes to say what they want."""
MAX_VISITORS = 16
_LARGEST = 4096
_MAX_NAME = 64
_PAUSE = 1.0
_BACKLOG = 16
_CREDENTIALS = struct.Struct("3i")


class Packets(Protocol):
    """One end of a connected packet socket."""

    async def receive(self) -> tuple[Message, list[int]] | None:
        """Wait for a message and its descriptors; ``None`` when the peer is gone."""

    async def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message."""

    def close(self) -> None:
        """Hang up."""


@record
class House:
    """What is behind a door: ``about`` tells of the run, ``rooms`` gives what can be entered now.

    ``end`` is called for who asks that it be closed for good; ``None`` where that is nobody's to ask.
    """

    about: Callable[[], Message]
    rooms: Callable[[], Sequence[Room]]
    end: Callable[[], Awaitable[None]] | None = None


class Door:
    """Listens at ``path`` (mode 0600) until it is closed, which ends every visit."""

    def __init__(self, path: Path, house: House, packets: Callable[[socket.socket], Packets]) -> None:
        """OSError where nothing can be put there. ``packets`` makes an end of a socket of it."""
        self._path = path
        self._house = house
        self._packets = packets
        self._visits: set[asyncio.Task[None]] = set()
        self._why = "the run has ended"
        self._listener = listen(path)
        self._accepting = asyncio.create_task(self._accept())

    async def close(self, why: str) -> None:
        """Let nobody in any more, and tell who is in why they have to go."""
        self._why = why
        self._path.unlink(missing_ok=True)
        self._accepting.cancel()
        for visit in self._visits:
            visit.cancel()
        await asyncio.gather(self._accepting, *self._visits, return_exceptions=True)
        self._listener.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._listener)
            except OSError:  # no descriptors are left: some will be
                await asyncio.sleep(_PAUSE)
                continue
            if peer_user(sock) != os.getuid() or len(self._visits) >= MAX_VISITORS:
                sock.close()
                continue
            visit = asyncio.create_task(self._serve(self._packets(sock)))
            self._visits.add(visit)
            visit.add_done_callback(self._visits.discard)

    async def _serve(self, packets: Packets) -> None:
        try:
            async with asyncio.timeout(ASK_DEADLINE):
                asked = await packets.receive()
            if asked is not None:
                await self._answer(packets, *asked)
        except asyncio.CancelledError:
            await self._say(packets, _failure(GuestError(self._why)))
            raise
        except (ClocheError, TimeoutError) as wrong:
            await self._say(packets, _failure(wrong))
        finally:
            packets.close()

    @staticmethod
    async def _say(packets: Packets, message: Message) -> None:
        with contextlib.suppress(ClocheError):  # they are gone
            await packets.send(message)

    async def _answer(self, packets: Packets, asked: Message, descriptors: list[int]) -> None:
        try:
            match asked.get("op"), len(descriptors):
                case "look", 0:
                    rooms = [dict(room.told()) for room in self._house.rooms()]
                    await packets.send({**self._house.about(), "rooms": rooms, "ends": bool(self._house.end)})
                case "enter", 1:
                    await self._let_in(packets, asked, descriptors[0])
                case "end", 0 if self._house.end:
                    await packets.send({"ended": True})
                    await self._house.end()
                case _:
                    raise UsageError("the other end of the socket talks nonsense")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _let_in(self, packets: Packets, asked: Message, stream: int) -> None:
        room = choose(self._house.rooms(), asked.get("job"))
        size = read_size(asked.get("size"))
        process = await room.root.exec(shell(room, size, str(asked.get("terminal", ""))[:_MAX_NAME]))
        hearing = asyncio.create_task(_hear(packets, process))
        joined = asyncio.create_task(join(process, stream, stream))
        try:
            await packets.send({"room": room.told()})
            await asyncio.wait({hearing, joined}, return_when=asyncio.FIRST_COMPLETED)
            if joined.done():  # else they hung up
                await packets.send(self._ended(room, joined))
        finally:
            for task in (hearing, joined):
                task.cancel()
            await asyncio.gather(hearing, joined, return_exceptions=True)

    def _ended(self, room: Room, joined: asyncio.Task[ExitStatus]) -> Message:
        """Tell how a shell ended. GuestError when that was not its own end."""
        try:
            status = joined.result()
        except GuestError as gone:
            if room.job in [there.job for there in self._house.rooms()]:
                raise
            raise GuestError(f"job '{room.job}' has ended") from gone
        if status.error:
            raise GuestError(f"there is no shell to be had in job '{room.job}': {status.error}")
        return {"code": status.code}


def choose(rooms: Sequence[Room], job: object) -> Room:
    """Return the room of a job, by its name or id, or the only one there is. UsageError with what there is."""
    found = [room for room in rooms if job is None or job in (room.job, room.id)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(repr(room.job) for room in rooms)
    if not rooms:
        raise UsageError("no job is running in this run now")
    if job is not None and not found:
        raise UsageError(f"no job {job!r} is running in this run now", hint=f"running: {known}")
    raise UsageError("several jobs are running in this run", hint=f"choose with --job: {known}")


def read_size(told: object) -> TtySize | None:
    """Read a terminal's size, ``None`` for none. UsageError for what is no size."""
    if told is None:
        return None
    match told:
        case [int(rows), int(columns)] if 0 < rows <= _LARGEST and 0 < columns <= _LARGEST:
            return TtySize(rows, columns)
        case _:
            raise UsageError("the other end of the socket talks nonsense of its terminal's size")


async def _hear(packets: Packets, process: Process) -> None:
    """Take new sizes of the visitor's terminal, until they hang up: then their shell does too."""
    with contextlib.suppress(ClocheError):
        while received := await packets.receive():
            message, descriptors = received
            for descriptor in descriptors:
                os.close(descriptor)
            size = read_size(message.get("size"))
            if size is not None:
                await process.resize(size)


def _failure(wrong: BaseException) -> Message:
    if isinstance(wrong, ClocheError):
        return {"error": {"message": wrong.message, "hint": wrong.hint}}
    return {"error": {"message": "nothing was asked in time", "hint": None}}


def peer_user(sock: socket.socket) -> int:
    """Tell who is at the other end of a Unix socket, by user id."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(credentials)[1]
    return user


def listen(path: Path) -> socket.socket:
    """Listen for packets at a path of whatever length, mode 0600; its folder is made, private. OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(f"/proc/self/fd/{folder}/{path.name}")
        path.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(folder)
    return listener
