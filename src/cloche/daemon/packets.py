"""Messages between the daemon and those who borrow its VMs: one JSON object a packet, descriptors beside it.

Both ends are processes of one user; who asks is checked by the daemon when it accepts. A packet is at most
MAX_PACKET bytes, and a peer that does not read is given up after SEND_DEADLINE.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import TYPE_CHECKING, Any

from cloche.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Message = Mapping[str, Any]

MAX_PACKET = 128 * 1024
SEND_DEADLINE = 10.0
_MAX_DESCRIPTORS = 4


class Packets:
    """One end of a connected SOCK_SEQPACKET socket, which it owns."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock

    async def receive(self) -> tuple[Message, list[int]] | None:
        """Wait for a message and its descriptors, which are then the caller's; ``None`` when the peer is gone.

        ProviderError for what is no message.
        """
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, MAX_PACKET, _MAX_DESCRIPTORS)
                break
            except BlockingIOError:
                await self._ready(writing=False)
            except ConnectionError:
                return None
        if not data:
            return None
        try:
            message = json.loads(data)
            if isinstance(message, dict):
                return message, descriptors
        except ValueError:
            pass
        for descriptor in descriptors:
            os.close(descriptor)
        raise ProviderError("the other end of the daemon's socket talks nonsense")

    async def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Send a message. ProviderError when the peer is gone or does not read."""
        data = json.dumps(message).encode()
        try:
            async with asyncio.timeout(SEND_DEADLINE):
                while not self._send_now(data, descriptors):
                    await self._ready(writing=True)
        except (TimeoutError, OSError) as wrong:
            raise ProviderError(f"the other end of the daemon's socket is gone: {wrong}") from wrong

    def _send_now(self, data: bytes, descriptors: Sequence[int]) -> bool:
        try:
            socket.send_fds(self._socket, [data], descriptors)
        except BlockingIOError:
            return False
        return True

    async def _ready(self, *, writing: bool) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        add, remove = (
            (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
        )

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        add(self._socket, wake)
        try:
            await ready
        finally:
            remove(self._socket)

    def close(self) -> None:
        """Hang up; whoever waits to receive must have been cancelled before."""
        self._socket.close()


async def connect(path: str, deadline: float) -> Packets:
    """Connect to a listening packet socket. ProviderError when nobody answers there within ``deadline`` seconds."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.setblocking(False)
    try:
        async with asyncio.timeout(deadline):
            await asyncio.get_running_loop().sock_connect(sock, path)
    except (OSError, TimeoutError) as wrong:
        sock.close()
        raise ProviderError(f"no daemon answers at {path}: {wrong}", hint="cloche up") from wrong
    return Packets(sock)
