"""The other side of a door: a shell in a guest that another process has, as a program to join."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any, TypeVar

from cloche.errors import GuestError, UsageError
from cloche.records import record
from cloche.vm.guest import ExitStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from cloche.terminal.door import Packets
    from cloche.vm.guest import TtySize

    Message = Mapping[str, Any]

T = TypeVar("T")
_DEADLINE = 10.0
_START = 60.0  # seconds for a shell to start, under emulation and with much else to do
_CHUNK = 64 * 1024


@record
class Address:
    """A door: the run it leads to, and where it is."""

    run: str
    path: Path


def doors(folder: Path) -> list[Address]:
    """Every door in a folder, dead ones included."""
    try:
        return [Address(path.name, path) for path in sorted(folder.iterdir()) if path.is_socket()]
    except OSError:
        return []


def clear(folder: Path) -> None:
    """Remove the doors that nobody answers at any more."""
    for address in doors(folder):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.setblocking(False)
            try:
                _reach(address, sock.connect)
            except ConnectionRefusedError:
                address.path.unlink(missing_ok=True)
            except OSError:
                pass  # busy, or gone by itself


def _reach(address: Address, connect: Callable[[str], T]) -> T:
    """Connect by a name that is short enough for a socket, however long the path is."""
    folder = os.open(address.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return connect(f"/proc/self/fd/{folder}/{address.path.name}")
    finally:
        os.close(folder)


class Knocking:
    """Asks at doors. ``packets`` makes an end of a connected packet socket of it."""

    def __init__(self, packets: Callable[[socket.socket], Packets]) -> None:
        self._packets = packets

    async def look(self, address: Address) -> Message | None:
        """Ask what there is; ``None`` where nobody answers any more: what a killed process left is removed."""
        return await self._ask(address, {"op": "look"})

    async def end(self, address: Address) -> Message | None:
        """Ask that what is kept there be given back."""
        return await self._ask(address, {"op": "end"})

    async def _ask(self, address: Address, question: Message) -> Message | None:
        packets = await self._connect(address)
        if packets is None:
            return None
        try:
            await packets.send(question)
            async with asyncio.timeout(_DEADLINE):
                received = await packets.receive()
        except TimeoutError:
            raise GuestError(f"{address.run} did not answer within {_DEADLINE:g} s") from None
        finally:
            packets.close()
        return None if received is None else _answer(received[0])

    async def enter(self, address: Address, *, job: str | None, size: TtySize | None, terminal: str) -> Visit:
        """Ask for a shell. UsageError for a job that is not there, GuestError when the run has ended."""
        packets = await self._connect(address)
        if packets is None:
            raise UsageError(f"{address.run} has ended")
        ours, theirs = socket.socketpair()
        visit = Visit(packets, ours)
        told = None if size is None else [size.rows, size.columns]
        try:
            with theirs:
                question = {"op": "enter", "job": job, "size": told, "terminal": terminal}
                await packets.send(question, [theirs.fileno()])
            await visit.begin()
        except BaseException:
            visit.close()
            raise
        return visit

    async def _connect(self, address: Address) -> Packets | None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            _reach(address, sock.connect)  # at once, or not at all: unix(7)
        except OSError as wrong:
            sock.close()
            if isinstance(wrong, ConnectionRefusedError):
                address.path.unlink(missing_ok=True)
            return None
        return self._packets(sock)


def _answer(message: Message) -> Message:
    if "error" in message:
        told = message["error"]
        raise UsageError(str(told["message"]), hint=told["hint"])
    return message


class Visit:
    """A shell behind a door; see ``cloche.terminal.joining.Joined``. ``room`` tells where it is, once it began."""

    def __init__(self, packets: Packets, stream: socket.socket) -> None:
        self.room: Message = {}
        self._packets = packets
        self._stream = stream
        self._stream.setblocking(False)
        self._closed = False

    async def begin(self) -> None:
        """Wait until the shell has started. UsageError when there is none to be had, GuestError when the run ended."""
        try:
            async with asyncio.timeout(_START):
                self.room = (await self._hear())["room"]
        except TimeoutError:
            raise GuestError(f"no shell has started within {_START:g} s") from None

    async def _hear(self) -> Message:
        received = None if self._closed else await self._packets.receive()
        if received is None:
            raise GuestError("the run's process has ended")
        return _answer(received[0])

    async def output(self) -> AsyncIterator[bytes]:
        """What it writes, until it has ended, or the run has."""
        loop = asyncio.get_running_loop()
        while not self._closed:
            try:
                data = await loop.sock_recv(self._stream, _CHUNK)
            except ConnectionError:
                return
            if not data:
                return
            yield data

    async def wait(self) -> ExitStatus:
        """Wait for its end. UsageError with the reason when that was another than its own."""
        return ExitStatus(code=int((await self._hear())["code"]))

    async def write(self, data: bytes) -> None:
        """Type."""
        with contextlib.suppress(ConnectionError):  # told where its end is
            await asyncio.get_running_loop().sock_sendall(self._stream, data)

    async def close_stdin(self) -> None:
        """Type the end."""
        with contextlib.suppress(OSError):
            self._stream.shutdown(socket.SHUT_WR)

    async def signal(self, number: int) -> None:  # noqa: ARG002 - whatever it is, hanging up is all that is asked
        """Hang up, which ends it."""
        self.close()

    async def resize(self, size: TtySize) -> None:
        """Tell the new size."""
        if not self._closed:
            await self._packets.send({"op": "size", "size": [size.rows, size.columns]})

    def close(self) -> None:
        """Hang up; again is fine."""
        if not self._closed:
            self._closed = True
            self._stream.close()
            self._packets.close()
