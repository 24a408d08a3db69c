"""A gate that steps wait at until the test opens it: what is at the gate is surely under way."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Self

from tests.e2e.place import DEADLINE

if TYPE_CHECKING:
    from types import TracebackType

    from cloche.vm.fake import Call

_HOSTS = {"sandbox": "127.0.0.1", "qemu": "10.0.2.2"}
"""The address of this host as a guest of each provider sees it."""


class Gate:
    """A listening socket. Steps connect and wait for a word."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(DEADLINE)
        self._port = self._server.getsockname()[1]
        self._waiting: list[socket.socket] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open()
        self._server.close()

    def script(self, provider: str) -> str:
        """Shell commands that wait at the gate; a gate that breaks fails them."""
        if provider == "fake":
            return f"gate {self._port}"
        return f'exec 3<>/dev/tcp/{_HOSTS[provider]}/{self._port}; read -r word <&3; [ "$word" = go ]'

    @staticmethod
    async def program(call: Call) -> int:
        """Be the program ``gate`` of a fake guest."""
        reader, writer = await asyncio.open_connection("127.0.0.1", int(call.argv[1]))
        word = await reader.readline()
        writer.close()
        await writer.wait_closed()
        return 0 if word == b"go\n" else 1

    def wait_for(self, number: int) -> None:
        """Return when so many more steps have arrived."""
        for _ in range(number):
            self._waiting.append(self._server.accept()[0])

    def open(self) -> None:
        """Let those go who wait."""
        while self._waiting:
            with self._waiting.pop() as step:
                step.sendall(b"go\n")
