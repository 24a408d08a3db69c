from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from cloche.guest import protocol
from cloche.guest.link import Link, LinkClosed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.fixture
def ends(sockets: tuple[socket.socket, socket.socket]) -> Iterator[tuple[Link, Link]]:
    left, right = (Link(sock.fileno(), sock) for sock in sockets)
    yield left, right
    for link in (left, right):
        link.drop()


def pipe_with(content: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, content)
    os.close(writer)
    return reader


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_frames_cross_in_order(ends: tuple[Link, Link]) -> None:
    left, right = ends
    left.send({"t": "a"}, b"one")
    left.send({"t": "b", "n": 2})
    assert right.receive() == [({"t": "a"}, b"one"), ({"t": "b", "n": 2}, b"")]


def test_nothing_to_receive_is_no_frame(ends: tuple[Link, Link]) -> None:
    assert ends[1].receive() == []


def test_a_link_works_over_a_descriptor_that_is_no_socket() -> None:
    reader, writer = os.pipe()
    try:
        Link(writer).send({"t": "hello"}, b"there")
        assert Link(reader).receive() == [({"t": "hello"}, b"there")]
    finally:
        os.close(reader)
        os.close(writer)


def test_what_does_not_fit_waits_and_arrives_whole(ends: tuple[Link, Link]) -> None:
    left, right = ends
    payloads = [bytes([number]) * 1_000_000 for number in range(3)]
    for payload in payloads:
        left.send({"t": "data"}, payload)
    assert left.wants_write
    received: list[tuple[protocol.Header, bytes]] = []
    while len(received) < len(payloads):
        received += right.receive()
        left.flush()
    assert [payload for _, payload in received] == payloads
    assert not left.wants_write


def test_descriptors_travel_with_their_frame(ends: tuple[Link, Link]) -> None:
    left, right = ends
    sent = [pipe_with(b"first"), pipe_with(b"second")]
    left.send({"t": "exec"}, b"payload", sent)
    assert right.receive() == [({"t": "exec"}, b"payload")]
    assert [os.read(descriptor, 10) for descriptor in right.fds] == [b"first", b"second"]
    assert not any(os.get_inheritable(descriptor) for descriptor in right.fds)


def test_sent_descriptors_are_closed_on_this_side(ends: tuple[Link, Link]) -> None:
    sent = pipe_with(b"")
    ends[0].send({"t": "exec"}, fds=[sent])
    assert not is_open(sent)


def test_descriptors_of_a_frame_that_waits_stay_open_and_in_order(ends: tuple[Link, Link]) -> None:
    left, right = ends
    left.send({"t": "data"}, bytes(1_000_000))
    waiting = [pipe_with(b"first"), pipe_with(b"second")]
    for descriptor in waiting:
        left.send({"t": "exec"}, bytes(300_000), fds=[descriptor])
    assert all(map(is_open, waiting))
    received = 0
    while received < 3:
        received += len(right.receive())
        left.flush()
    assert [os.read(descriptor, 10) for descriptor in right.fds] == [b"first", b"second"]
    assert not any(map(is_open, set(waiting) - set(right.fds)))


def test_a_closed_peer_ends_the_link(
    ends: tuple[Link, Link], sockets: tuple[socket.socket, socket.socket]
) -> None:
    left, right = ends
    right.send({"t": "last"}, b"words")
    sockets[1].close()
    assert left.receive() == [({"t": "last"}, b"words")]
    with pytest.raises(LinkClosed):
        left.receive()


def test_sending_to_a_closed_peer_ends_the_link_and_leaks_no_descriptor(
    ends: tuple[Link, Link], sockets: tuple[socket.socket, socket.socket]
) -> None:
    left, _ = ends
    left.send({"t": "data"}, bytes(1_000_000))
    waiting, late = pipe_with(b""), pipe_with(b"")
    left.send({"t": "exec"}, fds=[waiting])
    sockets[1].close()
    with pytest.raises(LinkClosed):
        left.send({"t": "exec"}, fds=[late])
    assert not left.wants_write
    assert not is_open(waiting)
    assert not is_open(late)


def test_dropping_a_link_closes_what_nobody_took(ends: tuple[Link, Link]) -> None:
    left, right = ends
    left.send({"t": "exec"}, fds=[pipe_with(b"")])
    right.receive()
    (arrived,) = right.fds
    right.drop()
    assert not is_open(arrived)


def test_noise_is_a_protocol_error(
    ends: tuple[Link, Link], sockets: tuple[socket.socket, socket.socket]
) -> None:
    sockets[0].send(b"\xff" * 100)
    with pytest.raises(protocol.ProtocolError):
        ends[1].receive()
