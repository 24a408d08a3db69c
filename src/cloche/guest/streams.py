"""One process stream: its output to the host within the host's credit, the host's input to it.

Output and exit are told in order: a process's exit is sent after the output it had written itself. What a
background process it left behind writes later is read and dropped, so that it never blocks or breaks.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import select
import termios
from collections import deque

from cloche.guest import protocol
from cloche.guest.spawn import set_terminal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Poller(Protocol):
        """What a stream needs of the agent's loop."""

        def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
            """Call back with the events that are ready; replaces an earlier watch of ``fd``."""

        def unwatch(self, fd: int) -> None:
            """No more calls for ``fd``."""

        def send(self, header: protocol.Header, payload: bytes = b"") -> None:
            """A frame to the host."""

        def exited(self, stream: Stream) -> None:
            """The stream has told its exit; forget it."""


_TERMINAL_BACKLOG = 64 * 1024
"""More than what a terminal holds of its program's output, 4 KiB read and 8 KiB on their way on Linux."""


class Stream:
    """A process's output and input, as the agent holds them. Owns its descriptors."""

    def __init__(self, poller: Poller, number: int, job: str) -> None:
        self.number = number
        self.job = job
        self.killed = False
        self._poller = poller
        self._output = -1
        self._stdin = -1
        self._terminal = False
        self._credit = protocol.WINDOW
        self._drain: int | None = None
        self._trailer: list[tuple[protocol.Header, bytes]] = []
        self._input: deque[memoryview] = deque()
        self._input_ended = False
        self._input_refused = False
        self._output_ended = False

    @property
    def is_open(self) -> bool:
        """Whether somebody may still write to its output."""
        return self._output >= 0

    def attach(self, output: int, stdin: int) -> None:
        """Take over the ends that the agent keeps; ``stdin`` is -1 without one, or the terminal itself."""
        self._output, self._stdin = output, stdin
        self._terminal = output == stdin
        for descriptor in {output, stdin} - {-1}:
            os.set_blocking(descriptor, False)
        if stdin < 0:
            self._refuse_input()
        self._rewatch()
        self._pump_input()

    def resize(self, rows: int, columns: int) -> None:
        """The host's terminal has this size now; no matter without one."""
        if self._terminal and self._output >= 0:
            set_terminal_size(self._output, rows, columns)

    def grant(self, amount: int) -> None:
        """The host took ``amount`` bytes."""
        self._credit += amount
        if self._drain is None:
            self._rewatch()
        else:
            self._pump_output()

    def finish(self, header: protocol.Header, files: list[tuple[protocol.Header, bytes]]) -> None:
        """The process ended: tell so after what it wrote is on its way."""
        self._trailer = [*files, (header, b"")]
        self._drain = self._waiting_bytes()
        self._refuse_input()
        self._pump_output()

    def write(self, data: bytes) -> None:
        """Input from the host."""
        self._input.append(memoryview(data))
        if self._input_refused:
            self._drop_input()
        else:
            self._pump_input()

    def end_input(self) -> None:
        """The host sends no more input."""
        self._input_ended = True
        self._pump_input()

    def close(self) -> None:
        """Drop everything; nothing more is told of this stream."""
        self._close_stdin()
        self._close_output()

    # --- output

    def _waiting_bytes(self) -> int:
        """How much the process can have left unread in its output; of a terminal nobody can tell but its end."""
        if self._output < 0 or self._output_ended:
            return 0
        if self._terminal:
            return _TERMINAL_BACKLOG
        count = array.array("i", [0])
        fcntl.ioctl(self._output, termios.FIONREAD, count)
        return count[0]

    def _rewatch(self) -> None:
        if self._output < 0:
            return
        events = select.EPOLLIN if self._credit > 0 and not self._output_ended else 0
        if self._terminal and self._stdin >= 0 and self._input:
            events |= select.EPOLLOUT
        if events:
            self._poller.watch(self._output, events, self._ready)
        else:
            self._poller.unwatch(self._output)

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._pump_input()
        if events & ~select.EPOLLOUT:
            self._pump_output()

    def _pump_output(self) -> None:
        """Send a chunk; of a terminal whose program has ended, all there is."""
        while self._send_chunk() and self._drain is not None and self._terminal:
            pass
        self._settle()

    def _send_chunk(self) -> bool:
        limit = min(self._credit, protocol.CHUNK)
        if self._drain is not None:
            limit = min(limit, self._drain)
        if limit <= 0 or self._output_ended:
            return False
        data = self._read(limit)
        if data:
            self._credit -= len(data)
            if self._drain is not None:
                self._drain -= len(data)
            self._poller.send({"t": "data", "s": self.number}, data)
            return True
        if data == b"":
            self._output_ended = True
        elif self._terminal and self._drain is not None:
            self._drain = 0
        return False

    def _read(self, limit: int) -> bytes | None:
        try:
            return os.read(self._output, limit)
        except BlockingIOError:
            return None
        except OSError:
            return b""  # a terminal whose last user has gone reads as EIO

    def _settle(self) -> None:
        """Tell the exit if everything before it has been told; else keep watching."""
        if self._trailer and (self._drain == 0 or self._output_ended):
            for header, payload in self._trailer:
                self._poller.send(header, payload)
            self._trailer = []
            self._let_go()
            self._poller.exited(self)
            return
        self._rewatch()

    def _let_go(self) -> None:
        """The process is gone; whoever still holds its output writes into nothing from now on."""
        if self._output >= 0 and not self._output_ended:
            self._poller.watch(self._output, select.EPOLLIN, self._discard)
        else:
            self._close_output()

    def _discard(self, _events: int) -> None:
        if self._read(protocol.CHUNK) == b"":
            self._close_output()

    def _close_output(self) -> None:
        if self._output >= 0:
            self._poller.unwatch(self._output)
            os.close(self._output)
            self._output = -1

    # --- input

    def _pump_input(self) -> None:
        while self._input and self._stdin >= 0:
            try:
                written = os.write(self._stdin, self._input[0])
            except BlockingIOError:
                self._watch_input()
                return
            except OSError:
                self._drop_input()
                break
            self._poller.send({"t": "credit", "s": self.number, "n": written})
            self._input[0] = self._input[0][written:]
            if not self._input[0]:
                self._input.popleft()
        if self._stdin < 0:
            return
        self._unwatch_input()
        if self._input_ended:
            if self._terminal:
                with contextlib.suppress(OSError):
                    os.write(self._stdin, b"\x04")  # end of transmission: how a terminal says end of file
            self._refuse_input()

    def _refuse_input(self) -> None:
        """Nobody will ever read: what came and what comes is dropped."""
        self._input_refused = True
        self._close_stdin()
        self._drop_input()

    def _drop_input(self) -> None:
        """Nobody reads any more: take the rest as read, so that the host is not left waiting for credit."""
        lost = sum(len(part) for part in self._input)
        self._input.clear()
        if lost:
            self._poller.send({"t": "credit", "s": self.number, "n": lost})

    def _watch_input(self) -> None:
        if self._terminal:
            self._rewatch()
        else:
            self._poller.watch(self._stdin, select.EPOLLOUT, lambda _events: self._pump_input())

    def _unwatch_input(self) -> None:
        if self._terminal:
            self._rewatch()
        else:
            self._poller.unwatch(self._stdin)

    def _close_stdin(self) -> None:
        if self._stdin >= 0 and not self._terminal:
            self._poller.unwatch(self._stdin)
            os.close(self._stdin)
        self._stdin = -1


def make_pipes(stream: Stream, header: protocol.Header) -> tuple[int, ...]:
    """Pipes for a process to be: the stream keeps one side, the other (output, then input) is returned.

    With a terminal there is nothing to make here: the job's init opens one in the job's root and sends it.
    """
    if header.get("tty"):
        return ()
    output, child_output = os.pipe()
    if not header.get("stdin"):
        stream.attach(output, -1)
        return (child_output,)
    try:
        child_input, stdin = os.pipe()
    except OSError:
        os.close(output)
        os.close(child_output)
        raise
    stream.attach(output, stdin)
    return (child_output, child_input)
