"""A scrape over a real socket, and clients that want something else."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from cloche.errors import ClocheError
from cloche.metrics import Metrics, serve
from cloche.metrics.serving import MAX_CLIENTS, MAX_HEAD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOST = "127.0.0.1"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serve(Metrics(), HOST, 0, deadline=0.2) as port:
        yield port


async def ask(port: int, request: bytes) -> bytes:
    """What comes until the server hangs up."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(request)
        with contextlib.suppress(ConnectionError):
            return await reader.read()
        return b""
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_scrape(port: int) -> None:
    head, _, body = (await ask(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert f"Content-Length: {len(body)}" in lines
    assert any(line.startswith("Content-Type: text/plain; version=") for line in lines)
    assert b"\nvm_active_sessions 0.0\n" in body


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET / HTTP/1.1", "404 Not Found"),
        ("GET /metrics/more HTTP/1.1", "404 Not Found"),
        ("GET /metrics?name=x HTTP/1.1", "200 OK"),
        ("POST /metrics HTTP/1.1", "405 Method Not Allowed"),
        ("nonsense", "405 Method Not Allowed"),
    ],
)
async def test_what_is_answered(port: int, request_line: str, status: str) -> None:
    answer = await ask(port, f"{request_line}\r\n\r\n".encode())
    assert answer.startswith(f"HTTP/1.1 {status}\r\n".encode())


async def test_a_head_alone(port: int) -> None:
    answer = await ask(port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("request_", [b"", b"GET /metrics", b"x" * (4 * MAX_HEAD)])
async def test_who_does_not_ask_as_one_should_is_hung_up_on(port: int, request_: bytes) -> None:
    async with asyncio.timeout(5):
        assert await ask(port, request_) == b""


async def test_more_clients_than_a_few_are_turned_away_and_the_others_are_served() -> None:
    async with serve(Metrics(), HOST, 0) as port, contextlib.AsyncExitStack() as clients:
        waiting = []
        for _ in range(MAX_CLIENTS):
            reader, writer = await asyncio.open_connection(HOST, port)
            clients.callback(writer.close)
            waiting.append((reader, writer))
        assert await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n") == b""
        reader, writer = waiting[0]
        writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")


async def test_an_end_hangs_up_on_everybody() -> None:
    async with serve(Metrics(), HOST, 0) as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        assert (await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n"))[:8] == b"HTTP/1.1"
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection(HOST, port)


async def test_an_address_in_use_is_an_error_that_names_the_setting(port: int) -> None:
    with pytest.raises(ClocheError, match=rf"cannot serve metrics on 127\.0\.0\.1:{port}: ") as refused:
        async with serve(Metrics(), HOST, port):
            pass
    assert "[metrics] listen" in (refused.value.hint or "")
