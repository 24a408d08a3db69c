from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING

import pytest

from cloche.daemon import packets
from cloche.daemon.packets import Packets, connect
from cloche.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


async def test_messages_arrive_whole_and_in_order_with_their_descriptors(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = map(Packets, pair)
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe:
        await ours.send({"n": 1, "text": "é"}, [write])
        await ours.send({"n": 2})
        os.close(write)
        first = await theirs.receive()
        assert first is not None
        message, (descriptor,) = first
        assert message == {"n": 1, "text": "é"}
        os.write(descriptor, b"through")
        os.close(descriptor)
        assert pipe.read() == b"through"
    assert await theirs.receive() == ({"n": 2}, [])


async def test_whoever_waits_hears_of_what_comes_later(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = map(Packets, pair)
    waiting = asyncio.create_task(theirs.receive())
    await asyncio.sleep(0)
    await ours.send({"n": 1})
    assert await waiting == ({"n": 1}, [])


async def test_a_peer_that_is_gone(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = map(Packets, pair)
    theirs.close()
    assert await ours.receive() is None
    with pytest.raises(ProviderError, match="is gone"):
        await ours.send({})


async def test_a_peer_that_does_not_read_is_given_up(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packets, "SEND_DEADLINE", 0.05)
    ours = Packets(pair[0])

    async def send_for_ever() -> None:
        while True:
            await ours.send({"text": "x" * 1000})

    with pytest.raises(ProviderError, match="is gone"):
        await send_for_ever()


@pytest.mark.parametrize("nonsense", [b"{", b"[]", b"\xff", b"3"])
async def test_nonsense_and_the_descriptors_that_came_with_it(
    pair: tuple[socket.socket, socket.socket], nonsense: bytes
) -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe:
        socket.send_fds(pair[0], [nonsense], [write])
        os.close(write)
        with pytest.raises(ProviderError, match="nonsense"):
            await Packets(pair[1]).receive()
        assert pipe.read() == b"", "the descriptor is still open"


async def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(ProviderError, match="no daemon answers"):
        await connect(str(tmp_path / "control.sock"), 1.0)
