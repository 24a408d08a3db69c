"""A scripted agent at the other end of a client's socket: it says what the test has it say, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Self

from cloche.guest import protocol
from cloche.vm.channel import AgentClient, Deadlines

if TYPE_CHECKING:
    from types import TracebackType

    from cloche.vm.inbox import Inbox

    Frame = tuple[protocol.Header, bytes]

HELLO: protocol.Header = {"v": 1, "kernel": "6.1", "cpus": 2, "memory": 1024}
PATIENCE = 10.0
SHORT = Deadlines(request=0.2, beat=0.05, pulse=0.2, progress=0.3)
LONG = Deadlines(request=PATIENCE, beat=PATIENCE, pulse=PATIENCE, progress=PATIENCE)


class FakeAgent:
    """Use as a context manager: leaving it closes both ends and sees that no task of the client's is left."""

    def __init__(self, deadlines: Deadlines = LONG, inbox: Inbox | None = None) -> None:
        ours, theirs = socket.socketpair()
        self.client = AgentClient(theirs, deadlines, inbox)
        self._socket = ours
        self._decoder = protocol.Decoder()
        self._arrived: list[Frame] = []

    async def __aenter__(self) -> Self:
        self._tasks = asyncio.all_tasks()
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.close()
        await self.hang_up()
        assert asyncio.all_tasks() == self._tasks

    async def hang_up(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def say(self, header: protocol.Header, payload: bytes = b"") -> None:
        self._writer.write(protocol.encode(header, payload))

    def say_bytes(self, data: bytes) -> None:
        self._writer.write(data)

    async def hear(self) -> Frame:
        """The client's next frame."""
        async with asyncio.timeout(PATIENCE):
            while not self._arrived:
                data = await self._reader.read(1 << 20)
                if not data:
                    raise EOFError
                self._arrived += self._decoder.feed(data)
        return self._arrived.pop(0)

    async def answer(self, kind: str, **fields: object) -> Frame:
        """Hear a request of that kind and reply to it."""
        header, payload = await self.hear()
        assert header["t"] == kind
        self.say({"t": "reply", "r": header["r"], **fields})
        return header, payload

    async def greet(self) -> None:
        """The handshake."""
        connecting = asyncio.create_task(self.client.connect())
        await self.answer("hello", **HELLO)
        await connecting

    async def is_cut_off(self) -> bool:
        """Whether the client has closed its end, having said whatever it still had to say."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                while await self._reader.read(1 << 20):
                    pass
        return True
