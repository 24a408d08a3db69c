"""The agent's loop: frames from the host, events of streams and jobs, ended children.

One thread, nothing blocks but making a job root. Whatever a job does, the loop answers ``ping``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time

from cloche.guest import cgroups, jobs, protocol
from cloche.guest.link import Link, LinkClosed
from cloche.guest.streams import Stream, make_pipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Protocol

    from cloche.guest.jobs import Job, JobMaker

    class Identity(Protocol):
        """What makes a resumed copy of a guest its own."""

        def take_on(self, hostname: str, now: float, seed: bytes) -> None:
            """Clock (``now``, seconds since the epoch), entropy (``seed``, the host's) and name."""

        def boot_id(self) -> str:
            """The guest's boot id, read now; never before ``take_on``."""


_CLOSED = select.EPOLLHUP | select.EPOLLERR
_MAX_ERROR = 4096
_MAX_SPARE = 64
_MAX_SIDE = 0xFFFF
_MAX_SIGNAL = 64
_ENTROPY = 32
_NAMELESS = "cloche"
"""What job roots are called before the guest has a name: those that warm a template up."""


class Agent:
    """Serves one host over one link."""

    def __init__(self, link: Link, maker: JobMaker, identity: Identity, inbox: str | None = None) -> None:
        """``inbox`` is the disk through which the host hands over what is large, if there is one."""
        self._link = link
        self._inbox = inbox
        self._maker = maker
        self._identity = identity
        self._epoll = select.epoll()
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._spare: list[Job] = []
        self._jobs: dict[str, Job] = {}
        self._inits: dict[int, Job] = {}
        self._streams: dict[int, Stream] = {}
        self._machine_id = ""
        self._hostname = _NAMELESS
        self._adopted = False
        self._requests: dict[str, Callable[[protocol.Header, bytes], protocol.Header | None]] = {
            "hello": self._hello,
            "adopt": self._adopt,
            "prepare": self._prepare,
            "ping": lambda _header, _payload: {},
            "inspect": self._inspect,
            "job.open": self._open_job,
            "job.close": self._close_job,
        }
        self._stream_messages: dict[str, Callable[[Stream, protocol.Header, bytes], None]] = {
            "credit": self._credit,
            "data": self._data,
            "eof": self._eof,
            "signal": self._signal,
            "resize": self._resize,
        }

    # --- the loop

    def run(self) -> NoReturn:
        """Serve until the host is gone (LinkClosed) or talks nonsense (ProtocolError)."""
        wake, notify = os.pipe()
        for descriptor in (wake, notify):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(notify, warn_on_full_buffer=False)
        self.watch(wake, select.EPOLLIN, lambda _events: self._reap(wake))
        self.watch(self._link.fileno, select.EPOLLIN, self._host_ready)
        while True:
            for descriptor, events in self._epoll.poll():
                watched = self._watched.get(descriptor)
                if watched is not None:
                    watched[1](events)

    def serve(self) -> NoReturn:
        """``run``, and then end the process: with 0 when the host is gone, else with 1 and the reason."""
        code = 1
        try:
            self.run()
        except LinkClosed:
            code = 0
        except protocol.ProtocolError as error:
            os.write(2, f"the host broke the channel's protocol: {error}\n".encode(errors="replace"))
        except Exception:  # noqa: BLE001 - a mistake of ours, told where the host finds it
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """See streams.Poller."""
        watched = self._watched.get(fd)
        if watched is None:
            self._epoll.register(fd, events)
        elif watched[0] != events:
            self._epoll.modify(fd, events)
        self._watched[fd] = (events, callback)

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
            job.lingering = [one for one in (*job.lingering, stream) if one.is_open]
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
        number = protocol.whole(header, "r")
        try:
            answer = request(header, payload)
        except (OSError, jobs.JobError, ValueError) as error:
            answer = {"error": f"{kind}: {error}"[:_MAX_ERROR]}
        if answer is not None:
            self._reply(number, answer)

    def _reply(self, request: int, answer: protocol.Header) -> None:
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
        self._machine_id = protocol.text(header, "machine_id")
        self._hostname = protocol.text(header, "hostname")
        self._identity.take_on(self._hostname, protocol.number(header, "time"), payload)
        self._adopted = True
        return {"boot_id": self._identity.boot_id()}

    def _inspect(self, _header: protocol.Header, _payload: bytes) -> protocol.Header:
        state = self._maker.look([job.pid for job in self._spare])
        return {
            "boot_id": self._identity.boot_id() if self._adopted else "",
            "hostname": os.uname().nodename,
            "entropy": os.urandom(_ENTROPY).hex(),
            "state": {"jobs": sorted(self._jobs), **state},
            "clock": time.time(),
        }

    def _prepare(self, header: protocol.Header, _payload: bytes) -> protocol.Header:
        """Have ``roots`` job roots waiting, so that opening one later costs a message."""
        while len(self._spare) < protocol.whole(header, "roots", high=_MAX_SPARE):
            self._spare.append(self._make())
        return {}

    def _make(self) -> Job:
        job = self._maker.make()
        self._inits[job.pid] = job
        self.watch(job.link.fileno, select.EPOLLIN, lambda events: self._job_ready(job, events))
        return job

    def _open_job(self, header: protocol.Header, payload: bytes) -> None:
        name = protocol.text(header, "job")
        named = header.get("hostname") is not None
        hostname = protocol.text(header, "hostname") if named else self._hostname
        memory, pids = (
            protocol.whole(header, key) if header.get(key) else None for key in ("memory", "pids")
        )
        if name in self._jobs:
            raise ValueError(f"there is a job root {name!r} already")
        if not self._spare:
            self._spare.append(self._make())
        job = self._spare[0]
        if job.group is not None:
            job.group.limit(memory, pids)
            job.oom_kills = job.group.oom_kills()
        self._spare.remove(job)
        self._maker.name(job, name, hostname)
        job.assigned = protocol.whole(header, "r")
        self._jobs[name] = job
        assign: protocol.Header = {"t": "assign", "hostname": hostname, "machine_id": self._machine_id}
        assign |= {key: header[key] for key in ("folders", "files") if key in header}
        self._to_job(job, assign, payload)

    def _close_job(self, header: protocol.Header, _payload: bytes) -> protocol.Header | None:
        job = self._jobs.pop(protocol.text(header, "job"), None)
        if job is None:
            return {}
        self._end(job, protocol.whole(header, "r"))
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
        if job.closing is not None:
            self._reply(job.closing, {})  # before what nobody needs to wait for
        jobs.bury(job)

    # --- streams

    def _stream_message(self, kind: str, header: protocol.Header, payload: bytes) -> None:
        number = protocol.whole(header, "s")
        stream = self._streams.get(number)
        if kind == "exec":
            if stream is not None:
                raise protocol.ProtocolError(f"stream {number} is in use")
            self._exec(number, header, payload)
        elif kind not in self._stream_messages:
            raise protocol.ProtocolError(f"there is no message {kind!r}")
        elif stream is not None:  # else it ended while this was on its way
            self._stream_messages[kind](stream, header, payload)

    def _exec(self, number: int, header: protocol.Header, payload: bytes) -> None:
        name = protocol.text(header, "job")
        job = self._jobs.get(name)
        if job is None:
            self.send({"t": "exit", "s": number, "code": 126, "error": f"there is no job root {name!r}"})
            return
        stream = Stream(self, number, job.name)
        self._streams[number] = job.streams[number] = stream
        try:
            pipes = make_pipes(stream, header)
            if "inbox" in header:
                pipes = (*pipes, self._open_inbox(protocol.whole(header, "inbox")))
        except OSError as error:
            stream.finish({"t": "exit", "s": number, "code": 126, "error": str(error)}, [])
            return
        self._to_job(job, header, payload, pipes)

    def _open_inbox(self, size: int) -> int:
        """The inbox for a process's standard input, without what was cached of an earlier content."""
        if self._inbox is None:
            raise FileNotFoundError(errno.ENOENT, "this guest has no inbox")
        descriptor = os.open(self._inbox, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(descriptor, 0, size, os.POSIX_FADV_DONTNEED)
        return descriptor

    def _credit(self, stream: Stream, header: protocol.Header, _payload: bytes) -> None:
        stream.grant(protocol.whole(header, "n"))

    def _data(self, stream: Stream, _header: protocol.Header, payload: bytes) -> None:
        stream.write(payload)

    def _eof(self, stream: Stream, _header: protocol.Header, _payload: bytes) -> None:
        stream.end_input()

    def _resize(self, stream: Stream, header: protocol.Header, _payload: bytes) -> None:
        rows, columns = (protocol.whole(header, key, high=_MAX_SIDE) for key in ("rows", "columns"))
        stream.resize(rows, columns)

    def _signal(self, stream: Stream, header: protocol.Header, _payload: bytes) -> None:
        number = protocol.whole(header, "n", high=_MAX_SIGNAL)
        stream.killed |= number == signal.SIGKILL
        job = self._jobs[stream.job]
        if job.group is None or not job.group.signal(stream.number, number, job.pid):
            # Whatever is being started is started once the init hears of this.
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
        except (LinkClosed, protocol.ProtocolError, OSError):
            self._job_lost(job)

    def _job_says(self, job: Job, header: protocol.Header, payload: bytes) -> None:
        kind = header["t"]
        if kind == "assigned" and job.assigned is not None:
            self._assigned(job, job.assigned, header)
            return
        stream = job.streams.get(protocol.whole(header, "s", default=0))
        if kind == "terminal" and job.link.fds:
            master = job.link.fds.popleft()
            if stream is None:
                os.close(master)
            else:
                stream.attach(master, master)
        elif kind == "file" and stream is not None:
            job.files.setdefault(stream.number, []).append((header, payload))
        elif kind == "exit" and stream is not None:
            self._job_exit(job, stream, header)

    def _assigned(self, job: Job, request: int, header: protocol.Header) -> None:
        job.assigned = None
        if "error" not in header:
            self._reply(request, {})
            return
        self._reply(request, {"error": str(header["error"])[:_MAX_ERROR]})
        self._jobs.pop(job.name, None)
        self._end(job, None)

    def _job_exit(self, job: Job, stream: Stream, header: protocol.Header) -> None:
        if self._adopted:  # before the guest is its own, reading would make the boot id of all its copies
            header["boot_id"] = self._identity.boot_id()
        if job.group is not None:
            kills = job.group.oom_kills()
            header["oom"], job.oom_kills = kills - job.oom_kills, kills
        files = job.files.pop(stream.number, [])
        events = job.group.open_if_populated(stream.number) if job.group and stream.killed else None
        if events is None:
            stream.finish(header, files)
        else:
            self._finish_once_empty(stream, events, header, files)

    def _finish_once_empty(
        self, stream: Stream, events: int, header: protocol.Header, files: list[tuple[protocol.Header, bytes]]
    ) -> None:
        """Whoever killed a program and hears that it ended may rely on all of it having ended."""

        def changed(_ready: int) -> None:
            wanted = self._streams.get(stream.number) is stream
            if wanted and cgroups.is_populated(events):
                return
            self.unwatch(events)
            os.close(events)
            if wanted:
                stream.finish(header, files)

        self.watch(events, select.EPOLLPRI, changed)

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
