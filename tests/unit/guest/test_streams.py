from __future__ import annotations

import os
import pty
import select
import tty
from typing import TYPE_CHECKING

import pytest

from cloche.guest import protocol
from cloche.guest.streams import Stream, make_pipes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Frame = tuple[protocol.Header, bytes]

EXIT: protocol.Header = {"t": "exit", "s": 7, "code": 0}
MUCH = 4 * protocol.WINDOW


class Loop:
    """A Poller that polls when the test says so and keeps what was sent."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self.sent: list[Frame] = []
        self.over: list[Stream] = []

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        if self._callbacks.pop(fd, None):
            self._epoll.unregister(fd)

    def send(self, header: protocol.Header, payload: bytes = b"") -> None:
        self.sent.append((header, payload))

    def exited(self, stream: Stream) -> None:
        self.over.append(stream)

    def turn(self, timeout: float = 0) -> bool:
        """Deliver what is ready, or will be within ``timeout`` seconds; whether anything was."""
        ready = self._epoll.poll(timeout)
        for fd, events in ready:
            if fd in self._callbacks:
                self._callbacks[fd](events)
        return bool(ready)

    def settle(self, turns: int = 1000) -> None:
        for _ in range(turns):
            if not self.turn():
                return
        raise AssertionError("the loop finds no rest")

    @property
    def output(self) -> bytes:
        return b"".join(payload for header, payload in self.sent if header["t"] == "data")

    @property
    def kinds(self) -> list[object]:
        return [header["t"] for header, _ in self.sent]

    @property
    def credit(self) -> int:
        return sum(protocol.whole(header, "n") for header, _ in self.sent if header["t"] == "credit")

    def close(self) -> None:
        self._epoll.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


class Program:
    """A stream and the program's ends of it, held by the test."""

    def __init__(self, loop: Loop, *, stdin: bool = False) -> None:
        self.stream = Stream(loop, 7, "job")
        self.output, *rest = make_pipes(self.stream, {"t": "exec", "stdin": stdin})
        self.stdin = rest[0] if rest else -1

    def close(self) -> None:
        self.stream.close()
        for descriptor in (self.output, self.stdin):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def program(loop: Loop) -> Iterator[Program]:
    made = Program(loop)
    yield made
    made.close()


@pytest.fixture
def reader(loop: Loop) -> Iterator[Program]:
    """A program with an input."""
    made = Program(loop, stdin=True)
    yield made
    made.close()


def fill(descriptor: int) -> int:
    """Write until nothing more fits."""
    os.set_blocking(descriptor, False)
    written = 0
    try:
        while True:
            written += os.write(descriptor, bytes(4096))
    except BlockingIOError:
        return written


def read(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(descriptor, size - len(data))
    return data


# Output


def test_output_is_told_as_it_comes(loop: Loop, program: Program) -> None:
    for text in (b"one", b"two"):
        os.write(program.output, text)
        loop.settle()
    assert loop.sent == [({"t": "data", "s": 7}, b"one"), ({"t": "data", "s": 7}, b"two")]


def test_output_stops_at_the_credit_and_goes_on_with_more(loop: Loop, program: Program) -> None:
    written = 0
    for _ in range(100):
        written += fill(program.output)
        loop.settle()
    assert len(loop.output) == protocol.WINDOW < written
    program.stream.grant(1000)
    loop.settle()
    assert len(loop.output) == protocol.WINDOW + 1000


def test_a_frame_of_output_has_a_limit(loop: Loop, program: Program) -> None:
    for _ in range(20):
        fill(program.output)
        loop.settle()
    assert max(len(payload) for _, payload in loop.sent) <= protocol.CHUNK


def test_the_exit_comes_after_the_output(loop: Loop, program: Program) -> None:
    os.write(program.output, b"last words")
    program.stream.finish(EXIT, [])
    loop.settle()
    assert loop.sent == [({"t": "data", "s": 7}, b"last words"), (EXIT, b"")]
    assert loop.over == [program.stream]


def test_collected_files_come_between_output_and_exit(loop: Loop, program: Program) -> None:
    os.write(program.output, b"out")
    program.stream.finish(EXIT, [({"t": "file", "s": 7, "file": 0}, b"content")])
    loop.settle()
    assert loop.kinds == ["data", "file", "exit"]


def test_the_exit_waits_for_credit_for_the_output_before_it(loop: Loop, program: Program) -> None:
    program.stream.grant(-protocol.WINDOW)
    os.write(program.output, b"last words")
    program.stream.finish(EXIT, [])
    loop.settle()
    assert loop.sent == []
    program.stream.grant(4)
    loop.settle()
    assert (loop.output, loop.over) == (b"last", [])
    program.stream.grant(100)
    loop.settle()
    assert (loop.output, loop.kinds[-1]) == (b"last words", "exit")


def test_an_exit_without_output_is_told_at_once(loop: Loop, program: Program) -> None:
    program.stream.finish(EXIT, [])
    assert loop.sent == [(EXIT, b"")]


def test_a_background_process_does_not_hold_the_exit_back(loop: Loop, program: Program) -> None:
    os.write(program.output, b"the program's own")
    program.stream.finish(EXIT, [])
    loop.settle()
    assert loop.kinds == ["data", "exit"]
    assert program.stream.is_open


def test_what_a_background_process_writes_later_is_dropped_without_end(loop: Loop, program: Program) -> None:
    program.stream.finish(EXIT, [])
    written = 0
    while written < MUCH:
        written += fill(program.output)
        loop.settle()
    assert loop.sent == [(EXIT, b"")]


def test_a_stream_closes_when_the_last_writer_has(loop: Loop, program: Program) -> None:
    program.stream.finish(EXIT, [])
    assert program.stream.is_open
    os.close(program.output)
    program.output = -1
    loop.settle()
    assert not program.stream.is_open


def test_a_program_that_closes_its_output_may_live_on(loop: Loop, program: Program) -> None:
    os.write(program.output, b"bye")
    os.close(program.output)
    program.output = -1
    loop.settle()
    assert (loop.output, loop.over) == (b"bye", [])
    program.stream.finish(EXIT, [])
    assert loop.kinds == ["data", "exit"]
    assert not program.stream.is_open


# Input


def test_input_arrives_and_is_credited(loop: Loop, reader: Program) -> None:
    reader.stream.write(b"hello")
    assert os.read(reader.stdin, 100) == b"hello"
    assert loop.credit == 5


def test_input_is_credited_only_as_it_is_taken(loop: Loop, reader: Program) -> None:
    data = os.urandom(protocol.WINDOW)
    reader.stream.write(data)
    loop.settle()
    assert 0 < loop.credit < len(data)
    taken = b""
    while len(taken) < len(data):
        taken += os.read(reader.stdin, 65536)
        loop.settle()
    assert taken == data
    assert loop.credit == len(data)


def test_the_end_of_input_comes_after_it(loop: Loop, reader: Program) -> None:
    data = bytes(protocol.WINDOW)
    reader.stream.write(data)
    reader.stream.end_input()
    taken = 0
    while part := os.read(reader.stdin, 65536):
        taken += len(part)
        loop.settle()
    assert taken == len(data)


def test_a_program_without_input_loses_none_of_the_hosts_credit(loop: Loop, program: Program) -> None:
    program.stream.write(b"to nobody")
    assert loop.credit == 9


@pytest.mark.parametrize("when", ["closed", "closed while some waits"])
def test_input_that_nobody_reads_is_taken_as_read(loop: Loop, reader: Program, when: str) -> None:
    if when == "closed while some waits":
        reader.stream.write(bytes(protocol.WINDOW))
        loop.settle()
    os.close(reader.stdin)
    reader.stdin = -1
    for _ in range(3):
        reader.stream.write(bytes(1000))
    loop.settle()
    assert loop.credit == 3000 + (protocol.WINDOW if when == "closed while some waits" else 0)


def test_input_after_the_exit_is_taken_as_read(loop: Loop, reader: Program) -> None:
    reader.stream.write(bytes(protocol.WINDOW))
    reader.stream.grant(-protocol.WINDOW)
    os.write(reader.output, b"keeps the exit waiting")
    reader.stream.finish(EXIT, [])
    assert loop.credit == protocol.WINDOW
    reader.stream.write(bytes(1000))
    assert loop.credit == protocol.WINDOW + 1000


def test_input_after_its_end_is_dropped(loop: Loop, reader: Program) -> None:
    reader.stream.end_input()
    reader.stream.write(b"late")
    assert loop.credit == 4


# Terminals


@pytest.fixture
def terminal(loop: Loop) -> Iterator[tuple[Stream, int]]:
    """A stream on a terminal and the program's end of it, echoing nothing."""
    stream = Stream(loop, 7, "job")
    assert make_pipes(stream, {"t": "exec", "tty": [24, 80]}) == ()
    master, slave = pty.openpty()
    tty.setraw(slave)
    stream.attach(master, master)
    yield stream, slave
    stream.close()


def test_a_terminal_carries_both_ways(loop: Loop, terminal: tuple[Stream, int]) -> None:
    stream, slave = terminal
    os.write(slave, b"out")
    assert loop.turn(timeout=10)  # a terminal carries things over in its own time
    stream.write(b"in")
    assert (loop.output, os.read(slave, 10), loop.credit) == (b"out", b"in", 2)
    os.close(slave)


def test_input_before_the_terminal_is_there_waits_for_it(loop: Loop) -> None:
    stream = Stream(loop, 7, "job")
    stream.write(b"early")
    master, slave = pty.openpty()
    tty.setraw(slave)
    stream.attach(master, master)
    assert (os.read(slave, 10), loop.credit) == (b"early", 5)
    stream.close()
    os.close(slave)


def test_the_end_of_a_terminals_input_is_control_d(terminal: tuple[Stream, int]) -> None:
    stream, slave = terminal
    stream.write(b"text\n")
    stream.end_input()
    assert read(slave, 6) == b"text\n\x04"
    os.close(slave)


@pytest.mark.parametrize("held", [False, True], ids=["nobody else", "a background process has it"])
def test_a_terminals_last_output_comes_before_the_exit(
    loop: Loop, terminal: tuple[Stream, int], *, held: bool
) -> None:
    stream, slave = terminal
    written = fill(slave)
    if not held:
        os.close(slave)
    stream.finish(EXIT, [])
    loop.settle()
    assert written > 4096
    assert (len(loop.output), loop.kinds[-1]) == (written, "exit")
    if held:
        os.close(slave)
    loop.settle()
    assert not stream.is_open


def test_a_terminals_exit_waits_for_credit_too(loop: Loop, terminal: tuple[Stream, int]) -> None:
    stream, slave = terminal
    stream.grant(-protocol.WINDOW)
    os.write(slave, b"last words")
    stream.finish(EXIT, [])
    loop.settle()
    assert loop.sent == []
    stream.grant(4)
    stream.grant(100)
    loop.settle()
    assert (loop.output, loop.kinds[-1]) == (b"last words", "exit")
    os.close(slave)


def test_a_terminals_exit_is_told_when_credit_comes_though_nothing_is_left_to_send(
    loop: Loop, terminal: tuple[Stream, int]
) -> None:
    stream, slave = terminal
    stream.grant(10 - protocol.WINDOW)
    os.write(slave, b"last words")
    stream.finish(EXIT, [])
    loop.settle()
    assert loop.kinds == ["data"]
    stream.grant(10)
    assert loop.kinds == ["data", "exit"]
    os.close(slave)


def test_a_terminal_is_resized(terminal: tuple[Stream, int]) -> None:
    stream, slave = terminal
    stream.resize(50, 132)
    assert os.get_terminal_size(slave) == (132, 50)
    os.close(slave)


def test_resizing_without_a_terminal_is_no_matter(program: Program) -> None:
    program.stream.resize(50, 132)
