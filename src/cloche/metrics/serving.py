"""Metrics over HTTP: as little of it as a scrape needs.

https://prometheus.io/docs/instrumenting/exposition_formats/ asks for a GET of text; nothing more is answered. A
client gets seconds, a head of 8 KiB and one answer; more clients than a few are turned away.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from cloche.errors import ClocheError
from cloche.metrics.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cloche.metrics.metrics import Metrics

MAX_CLIENTS = 16
MAX_HEAD = 8 * 1024
"""Bytes of a request."""
DEADLINE = 5.0
"""Seconds for a client to ask, and as many to take the answer."""
_TEXT = "text/plain; charset=utf-8"


@contextlib.asynccontextmanager
async def serve(metrics: Metrics, host: str, port: int, *, deadline: float = DEADLINE) -> AsyncIterator[int]:
    """Serve ``/metrics`` for as long as the block lasts; gives the port (asked for with 0: one that is free).

    ClocheError when the address cannot be used.
    """
    service = _Service(metrics, deadline)
    try:
        server = await asyncio.start_server(service.answer, host, port, limit=MAX_HEAD)
    except OSError as error:
        raise ClocheError(
            f"cannot serve metrics on {host}:{port}: {error.strerror or error}",
            hint="change [metrics] listen in ~/.config/cloche/config.toml (CLOCHE_METRICS_LISTEN)",
        ) from None
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await service.end()


class _Service:
    def __init__(self, metrics: Metrics, deadline: float) -> None:
        self._metrics = metrics
        self._deadline = deadline
        self._clients: set[asyncio.Task[None]] = set()

    def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer a client in a task of its own, or hang up when there are too many."""
        if len(self._clients) >= MAX_CLIENTS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def end(self) -> None:
        """Hang up on everybody."""
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._deadline):
                head = await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(self._deadline):
                writer.write(self._respond(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that does not ask as it should gets nothing
        finally:
            writer.transport.abort()

    def _respond(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0]
        if method not in {b"GET", b"HEAD"}:
            return _response("405 Method Not Allowed", _TEXT, b"GET /metrics\n", extra="Allow: GET, HEAD\r\n")
        if path != b"/metrics":
            return _response("404 Not Found", _TEXT, b"GET /metrics\n")
        body = self._metrics.render()
        response = _response("200 OK", CONTENT_TYPE, body)
        return response[: -len(body)] if method == b"HEAD" else response


def _response(status: str, kind: str, body: bytes, extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}"
    return f"{head}Connection: close\r\n\r\n".encode() + body
