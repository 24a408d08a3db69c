"""An agent on this host for the tests of this folder: a real loop, real inits, no namespaces, no root."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cloche.guest import inspection, protocol
from cloche.guest.agent import Agent
from cloche.guest.init import Init
from cloche.guest.jobs import Job, JobError, JobMaker, let_go_of_all_but
from cloche.guest.link import Link, LinkClosed
from cloche.guest.roots import RootPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    Frame = tuple[protocol.Header, bytes]

DEADLINE = 20.0
BOOT_ID = "11111111-2222-3333-4444-555555555555"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Names:
    """An Identity that touches nothing of this host."""

    def take_on(self, hostname: str, now: float, seed: bytes) -> None:
        pass

    def boot_id(self) -> str:
        return BOOT_ID


class PlainInit(Init):
    """An init that leaves this host's names alone."""

    def _take_names(self, header: protocol.Header) -> None:
        pass


def serve_plainly(end: socket.socket) -> NoReturn:
    with contextlib.suppress(LinkClosed):
        PlainInit(end, None, single_user=True).run()
    os._exit(0)


class PlainMaker(JobMaker):
    """Forks inits without roots; ``serve`` is what each does with its link, ``limit`` how many there can be."""

    def __init__(
        self, folder: Path, serve: Callable[[socket.socket], NoReturn] = serve_plainly, limit: int = 1000
    ) -> None:
        self._folder = folder
        self._plan = RootPlan(lower="/", folder=str(folder))
        self._serve = serve
        self._limit = limit
        self._slots = 0

    def look(self, inits: list[int]) -> dict[str, list[str]]:
        return inspection.look(self._plan, inits)

    def make(self) -> Job:
        if self._slots == self._limit:
            raise JobError("a job root could not be made: No space left on device")
        self._slots += 1
        folder = self._folder / str(self._slots)
        folder.mkdir()
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            let_go_of_all_but(theirs.fileno())
            self._serve(theirs)
        theirs.close()
        return Job(self._slots, pid, Link(ours.fileno(), ours), ours, str(folder), None)


class AgentProcess:
    """An agent in a process of its own, and the host's end of its link."""

    def __init__(self, maker: PlainMaker) -> None:
        self.socket, theirs = socket.socketpair()
        self._decoder = protocol.Decoder()
        self._arrived: list[Frame] = []
        self._ended: tuple[int, str] | None = None
        sys.stderr.flush()
        self.said, said = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(said, 2)
            let_go_of_all_but(theirs.fileno())
            Agent(Link(theirs.fileno(), theirs), maker, Names()).serve()
        os.close(said)
        theirs.close()
        self.socket.settimeout(DEADLINE)

    def send(self, header: protocol.Header, payload: bytes = b"") -> None:
        self.socket.sendall(protocol.encode(header, payload))

    def receive(self) -> Frame:
        """The next frame. EOFError when the agent is gone."""
        while not self._arrived:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self._arrived += self._decoder.feed(data)
        return self._arrived.pop(0)

    def request(self, header: protocol.Header, payload: bytes = b"") -> protocol.Header:
        """Send a request and return its reply; what comes before that is dropped."""
        self.send({"r": 1, **header}, payload)
        while True:
            answer, _ = self.receive()
            if answer["t"] == "reply" and answer["r"] == header.get("r", 1):
                return answer

    def until_exit(self, stream: int) -> tuple[bytes, protocol.Header]:
        """The rest of a stream's output, and its exit."""
        output = b""
        while True:
            header, payload = self.receive()
            if header.get("s") != stream:
                continue
            if header["t"] == "data":
                output += payload
            if header["t"] == "exit":
                return output, header

    def silence(self) -> list[Frame]:
        """What arrives before the answer to a ping: everything the agent had to say."""
        self.send({"t": "ping", "r": 999_999})
        before = []
        while (frame := self.receive())[0] != {"t": "reply", "r": 999_999}:
            before.append(frame)
        return before

    def hear_out(self) -> None:
        """Wait until the agent hangs up."""
        with contextlib.suppress(EOFError):
            while True:
                self.receive()

    def descriptors(self) -> int:
        """How many descriptors the agent has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in path.read_text("ascii").split()]

    def end(self) -> tuple[int, str]:
        """Hang up; the agent's exit code and what it said on standard error. Again is fine."""
        if self._ended is not None:
            return self._ended
        self.socket.close()
        code = self._wait()
        said = b""
        while select.select([self.said], [], [], 0)[0] and (part := os.read(self.said, 65536)):
            said += part
        os.close(self.said)
        self._ended = (code, said.decode())
        return self._ended

    def _wait(self) -> int:
        descriptor = os.pidfd_open(self.pid)
        ended, _, _ = select.select([descriptor], [], [], DEADLINE)
        os.close(descriptor)
        if not ended:
            os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
