"""A terminal of the test's own."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import termios
from typing import TYPE_CHECKING

import pytest

from cloche.terminal.console import Console, terminal_name
from cloche.terminal.joining import join, join_console
from cloche.terminal.streams import Sink, Source
from cloche.vm.fake import FakeProvider
from cloche.vm.guest import ExecSpec, JobRootSpec, TtySize
from cloche.vm.provider import VmSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from cloche.vm.fake import FakeRoot

DEADLINE = 10
ENV = {"PATH": "/usr/bin"}


@pytest.fixture
def terminal() -> Iterator[tuple[int, Console]]:
    ours, theirs = pty.openpty()
    yield ours, Console(theirs, theirs)
    for descriptor in (ours, theirs):
        os.close(descriptor)


@pytest.fixture
async def root() -> AsyncIterator[FakeRoot]:
    provider = FakeProvider()
    vm = provider._vms[(await provider.allocate(VmSpec())).vm.id]
    yield await vm.guest.open_job(JobRootSpec("job"))
    await provider.close()


def set_size(descriptor: int, rows: int, columns: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def is_raw(console: Console) -> bool:
    return not termios.tcgetattr(console.stdin)[3] & (termios.ICANON | termios.ISIG | termios.ECHO)


async def read_until(descriptor: int, text: bytes) -> bytes:
    source, seen = Source(descriptor), b""
    async with asyncio.timeout(DEADLINE):
        while text not in seen:
            seen += await source.read()
    return seen


def test_raw_is_taken_back_whatever_happens(terminal: tuple[int, Console]) -> None:
    _, console = terminal
    before = termios.tcgetattr(console.stdin)
    with console.raw():
        assert is_raw(console)
    assert termios.tcgetattr(console.stdin) == before
    with pytest.raises(KeyError), console.raw():
        raise KeyError
    assert termios.tcgetattr(console.stdin) == before


def test_a_terminal_that_hung_up_is_no_trouble() -> None:
    ours, theirs = pty.openpty()
    console = Console(theirs, theirs)
    with console.raw():
        os.close(ours)
    assert console.size is not None
    os.close(theirs)


async def test_sizes_are_told(terminal: tuple[int, Console]) -> None:
    _, console = terminal
    told: asyncio.Queue[TtySize] = asyncio.Queue()
    set_size(console.stdin, 40, 132)
    assert console.size == TtySize(40, 132)
    with console.resized(told.put_nowait):
        set_size(console.stdin, 50, 100)
        os.kill(os.getpid(), signal.SIGWINCH)
        async with asyncio.timeout(DEADLINE):
            assert await told.get() == TtySize(50, 100)


def test_what_is_no_terminal_has_no_size_and_stays_as_it_is(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w+b") as file:
        console = Console(file.fileno(), file.fileno())
        assert console.size is None
        with console.raw():
            pass


@pytest.mark.parametrize(
    ("said", "name"),
    [("xterm-256color", "xterm-256color"), ("", "dumb"), ("../../etc", "dumb"), ("a" * 65, "dumb")],
)
def test_the_terminals_kind(said: str, name: str) -> None:
    assert terminal_name({"TERM": said}) == name


async def test_a_program_on_the_terminal(terminal: tuple[int, Console], root: FakeRoot) -> None:
    ours, console = terminal
    process = await root.exec(ExecSpec(["bash", "-c", "echo up; exec cat"], ENV, tty=console.size))
    joined = asyncio.create_task(join_console(process, console))
    await read_until(ours, b"up")
    assert is_raw(console)
    os.write(ours, b"typed\x1a\x1c")
    seen = await read_until(ours, b"\x1c")
    assert seen.endswith(b"typed\x1a\x1c"), "what stops and ends programs are bytes"
    os.write(ours, b"\x03")
    async with asyncio.timeout(DEADLINE):
        assert (await joined).signal == signal.SIGINT, "the guest's terminal makes it one"
    assert not is_raw(console)


async def test_who_is_cancelled_hangs_up(terminal: tuple[int, Console], root: FakeRoot) -> None:
    ours, console = terminal
    process = await root.exec(
        ExecSpec(["bash", "-c", "trap '' HUP; echo up; sleep 1000"], ENV, tty=console.size)
    )
    joined = asyncio.create_task(join_console(process, console))
    await read_until(ours, b"up")
    joined.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joined
    assert not is_raw(console)
    assert (await process.wait()).signal == signal.SIGKILL


async def test_nobody_who_reads_is_a_hang_up(root: FakeRoot) -> None:
    process = await root.exec(ExecSpec(["bash", "-c", "echo up; sleep 1000"], ENV, stdin=True))
    reading, writing = os.pipe()
    os.close(reading)
    nothing = os.open("/dev/null", os.O_RDONLY)
    try:
        async with asyncio.timeout(DEADLINE):
            assert (await join(process, nothing, writing)).signal == signal.SIGHUP
    finally:
        os.close(writing)
        os.close(nothing)


async def test_files_work_as_pipes_do(root: FakeRoot, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"x" * 100_000)
    process = await root.exec(ExecSpec(["cat"], ENV, stdin=True))
    with (tmp_path / "in").open("rb") as given, (tmp_path / "out").open("wb") as taken:
        async with asyncio.timeout(DEADLINE):
            status = await join(process, given.fileno(), taken.fileno())
    assert (status.code, (tmp_path / "out").read_bytes()) == (0, b"x" * 100_000)


async def test_a_full_pipe_holds_up_nobody_else() -> None:
    reading, writing = os.pipe()
    with Sink(writing) as sink:
        writes = asyncio.create_task(sink.write(b"x" * 1_000_000))
        await asyncio.sleep(0)
        assert os.get_blocking(writing), "whether it blocks is shared with others"
        seen = 0
        while seen < 1_000_000:
            seen += len(await Source(reading).read())
        await writes
    os.close(reading)
    os.close(writing)
