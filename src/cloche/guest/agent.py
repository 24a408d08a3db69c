"""The agent's loop: frames from the host, events of streams and jobs, ended children.

One thread, nothing blocks but making a job root. Whatever a job does, the loop answers ``ping``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from typing import TYPE_CHECKING, NoReturn, Protocol

from cloche.guest import jobs, protocol
from cloche.guest.link import Link, LinkClosed
from cloche.guest.spawn import set_terminal_size
from cloche.guest.streams import Stream, make_pipes

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.guest.jobs import Job, JobMaker

_CLOSED = select.EPOLLHUP | select.EPOLLERR


class Identity(Protocol):
    """What makes a resumed copy of a guest its own."""

    def take_on(self, hostname: str, now: float, seed: bytes) -> None:
        """Clock (``now``, seconds since the epoch), entropy (``seed``, the host's) and name."""

    def boot_id(self) -> str:
        """The guest's boot id, read now; never before ``take_on``."""


class Agent:
    """Serves one host over one link."""

    def __init__(self, link: Link, maker: JobMaker, identity: Identity) -> None:
        self._link = link
        self._maker = maker
        self._identity = identity
        self._epoll = select.epoll()
        self._watched: dict[int, Callable[[int], None]] = {}
        self._spare: list[Job] = []
        self._jobs: dict[str, Job] = {}
        self._inits: dict[int, Job] = {}
        self._streams: dict[int, Stream] = {}
        self._machine_id = ""
        self._adopted = False
        self._requests: dict[str, Callable[[protocol.Header, bytes], protocol.Header | None]] = {
            "hello": self._hello,
            "adopt": self._adopt,
            "prepare": self._prepare,
            "ping": lambda _header, _payload: {},
            "job.open": self._open_job,
            "job.close": self._close_job,
        }

    # --- the loop

    def run(self) -> NoReturn:
        """Serve for ever. LinkClosed when the host is gone for good (sockets only, never a VM's port)."""
        wake, notify = os.pipe()
        for descriptor in (wake, notify):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(notify, warn_on_full_buffer=False)
        self.watch(wake, select.EPOLLIN, lambda _events: self._reap(wake))
        self.watch(self._link.fileno, select.EPOLLIN, self._host_ready)
        while True:
            for descriptor, events in self._epoll.poll():
                callback = self._watched.get(descriptor)
                if callback is not None:
                    callback(events)

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """See streams.Poller."""
        if fd in self._watched:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._watched[fd] = callback

    def unwatch(self, fd: int) -> None:
        """See streams.Poller."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def send(self, header: protocol.Header, payload: bytes = b"") -> None:
        """A frame to the host; what does not fit waits for the link to be writable."""
        self._link.send(header, payload)
        if self._link.wants_write:
            self.watch(self._link.fileno, select.EPOLLIN | select.EPOLLOUT, self._host_ready)

    def exited(self, stream: Stream) -> None:
        """See streams.Poller."""
        self._streams.pop(stream.number, None)
        job = self._jobs.get(stream.job)
        if job is not None:
            job.streams.pop(stream.number, None)
            job.lingering.append(stream)
            if job.group is not None:
                job.group.ended(stream.number)

    def _host_ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._link.flush()
            if not self._link.wants_write:
                self.watch(self._link.fileno, select.EPOLLIN, self._host_ready)
        if events & (select.EPOLLIN | _CLOSED):
            for header, payload in self._link.receive():
                self._handle(header, payload)

    # --- requests

    def _handle(self, header: protocol.Header, payload: bytes) -> None:
        kind = str(header["t"])
        request = self._requests.get(kind)
        if request is None:
            self._stream_message(kind, header, payload)
            return
        try:
            answer = request(header, payload)
        except (OSError, jobs.JobError, RuntimeError, ValueError, KeyError) as error:
            answer = {"error": f"{kind}: {error}"}
        if answer is not None:
            self._reply(header["r"], answer)

    def _reply(self, request: object, answer: protocol.Header) -> None:
        self.send({"t": "reply", "r": request, **answer})

    def _hello(self, header: protocol.Header, _payload: bytes) -> protocol.Header:
        if header.get("v") != protocol.VERSION:
            return {"error": f"the agent speaks version {protocol.VERSION}, the host {header.get('v')}"}
        system = os.uname()
        return {
            "v": protocol.VERSION,
            "kernel": system.release,
            "cpus": len(os.sched_getaffinity(0)),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        }

    def _adopt(self, header: protocol.Header, payload: bytes) -> protocol.Header:
        self._machine_id = str(header["machine_id"])
        self._identity.take_on(str(header["hostname"]), float(str(header["time"])), payload)
        self._adopted = True
        return {"boot_id": self._identity.boot_id()}

    def _prepare(self, header: protocol.Header, _payload: bytes) -> protocol.Header:
        """Have ``roots`` job roots waiting, so that opening one later costs a message."""
        while len(self._spare) < int(str(header["roots"])):
            self._spare.append(self._make())
        return {}

    def _make(self) -> Job:
        job = self._maker.make()
        self._inits[job.pid] = job
        self.watch(job.link.fileno, select.EPOLLIN, lambda events: self._job_ready(job, events))
        return job

    def _open_job(self, header: protocol.Header, _payload: bytes) -> None:
        name = str(header["job"])
        if name in self._jobs:
            raise ValueError(f"there is a job root {name!r} already")
        job = self._spare.pop(0) if self._spare else self._make()
        job.name = name
        job.assigned = int(str(header["r"]))
        self._jobs[name] = job
        if job.group is not None:
            memory, pids = header.get("memory"), header.get("pids")
            job.group.limit(int(str(memory)) if memory else None, int(str(pids)) if pids else None)
            job.oom_kills = job.group.oom_kills()
        self._to_job(job, {"t": "assign", "hostname": header["hostname"], "machine_id": self._machine_id})

    def _close_job(self, header: protocol.Header, _payload: bytes) -> protocol.Header | None:
        job = self._jobs.pop(str(header["job"]), None)
        if job is None:
            return {}
        self._end(job, int(str(header["r"])))
        return None

    def _end(self, job: Job, request: int | None) -> None:
        for number in job.streams:
            self._streams.pop(number, None)
        self.unwatch(job.link.fileno)
        job.closing = request
        jobs.end(job)
        if job.reaped:
            self._buried(job)

    def _buried(self, job: Job) -> None:
        jobs.bury(job)
        if job.closing is not None:
            self._reply(job.closing, {})

    # --- streams

    def _stream_message(self, kind: str, header: protocol.Header, payload: bytes) -> None:
        number = int(str(header["s"]))
        if kind == "exec":
            self._exec(number, header, payload)
            return
        stream = self._streams.get(number)
        if stream is None:
            return  # it ended while this was on its way
        if kind == "credit":
            stream.grant(int(str(header["n"])))
        elif kind == "data":
            stream.write(payload)
        elif kind == "eof":
            stream.end_input()
        elif kind == "signal":
            self._signal(stream, int(str(header["n"])))
        elif kind == "resize":
            set_terminal_size(stream.terminal, int(str(header["rows"])), int(str(header["columns"])))

    def _exec(self, number: int, header: protocol.Header, payload: bytes) -> None:
        job = self._jobs.get(str(header["job"]))
        if job is None:
            self.send(
                {"t": "exit", "s": number, "code": 126, "error": f"there is no job root {header['job']!r}"}
            )
            return
        stream = Stream(self, number, job.name)
        self._streams[number] = job.streams[number] = stream
        self._to_job(job, header, payload, make_pipes(stream, header))

    def _signal(self, stream: Stream, number: int) -> None:
        job = self._jobs[stream.job]
        if job.group is not None:
            job.group.signal(stream.number, number, signal.SIGKILL)
        else:
            self._to_job(job, {"t": "signal", "s": stream.number, "n": number})

    # --- jobs

    def _to_job(
        self, job: Job, header: protocol.Header, payload: bytes = b"", fds: tuple[int, ...] = ()
    ) -> None:
        with contextlib.suppress(LinkClosed):  # its death is noticed where its link is read
            job.link.send(header, payload, fds)
        if job.link.wants_write:
            events = select.EPOLLIN | select.EPOLLOUT
            self.watch(job.link.fileno, events, lambda ready: self._job_ready(job, ready))

    def _job_ready(self, job: Job, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                job.link.flush()
                if not job.link.wants_write:
                    self.watch(job.link.fileno, select.EPOLLIN, lambda ready: self._job_ready(job, ready))
            if events & (select.EPOLLIN | _CLOSED):
                for header, payload in job.link.receive():
                    self._job_says(job, header, payload)
        except (LinkClosed, protocol.ProtocolError):
            self._job_lost(job)

    def _job_says(self, job: Job, header: protocol.Header, payload: bytes) -> None:
        kind = header["t"]
        if kind == "assigned" and job.assigned is not None:
            self._reply(job.assigned, {})
            job.assigned = None
            return
        stream = job.streams.get(int(str(header.get("s", -1))))
        if stream is None:
            return
        if kind == "terminal":
            master = job.link.fds.popleft()
            stream.attach(master, master)
        elif kind == "file":
            job.files.setdefault(stream.number, []).append((header, payload))
        elif kind == "exit":
            self._job_exit(job, stream, header)

    def _job_exit(self, job: Job, stream: Stream, header: protocol.Header) -> None:
        if self._adopted:  # before the guest is its own, reading would make the boot id of all its copies
            header["boot_id"] = self._identity.boot_id()
        if job.group is not None:
            kills = job.group.oom_kills()
            header["oom"], job.oom_kills = kills - job.oom_kills, kills
        stream.finish(header, job.files.pop(stream.number, []))

    def _job_lost(self, job: Job) -> None:
        """The init died under its programs: they are gone too, and the host is told so."""
        self._jobs.pop(job.name, None)
        if job in self._spare:
            self._spare.remove(job)
        for number in job.streams:
            self.send(
                {"t": "exit", "s": number, "code": 137, "signal": 9, "error": "the job's root was destroyed"}
            )
        if job.assigned is not None:
            self._reply(job.assigned, {"error": "the job's root was destroyed"})
        self._end(job, None)

    def _reap(self, wake: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            job = self._inits.pop(pid, None)
            if job is not None:
                job.reaped = True
                if job.ended:  # else its link tells of its end, after what it still had to say
                    self._buried(job)
