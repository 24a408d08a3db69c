"""The agent's side of job roots: making them ready before they are asked for, handing out, ending."""

from __future__ import annotations

import codecs
import contextlib
import gc
import json
import os
import shutil
import signal
import socket

from cloche.guest import init, inspection, linux, roots
from cloche.guest.cgroups import JobGroup
from cloche.guest.link import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.guest import protocol
    from cloche.guest.network import JobNetwork
    from cloche.guest.streams import Stream

# A job's init cannot import any more once its root has replaced the agent's; codecs are imported on first use.
for _name in ("ascii", "utf-8", "latin-1"):
    codecs.lookup(_name)


LABEL = "job.json"
"""The file in a root's folder that tells the host whose it is, where the host can look."""

_PID = "init "
_MAX_REPORT = 4096
_FIRST_FREE = 3  # after standard input, output and error


class JobError(Exception):
    """A job root could not be made or used; the message goes to the host."""


class Job:
    """A job root: its init's process and link, its control group, its streams."""

    def __init__(  # noqa: PLR0917 - what a job root is made of, in one place
        self, slot: int, pid: int, link: Link, sock: socket.socket, folder: str, group: JobGroup | None
    ) -> None:
        self.slot = slot
        self.pid = pid
        self.link = link
        self.socket = sock
        self.folder = folder
        self.group = group
        self.name = ""
        self.assigned: int | None = None
        self.oom_kills = 0
        self.streams: dict[int, Stream] = {}
        self.lingering: list[Stream] = []
        self.files: dict[int, list[tuple[protocol.Header, bytes]]] = {}
        self.reaped = False
        self.ended = False
        self.closing: int | None = None


class JobMaker:
    """Forks inits into roots of their own.

    ``plan`` tells what a root is made of (its folder is a parent here); ``network`` wires a new root's network
    namespace, if it has one; ``cgroups`` tells whether the guest has control groups.
    """

    def __init__(self, plan: roots.RootPlan, network: JobNetwork | None, *, cgroups: bool) -> None:
        self._plan = plan
        self._network = network
        self._cgroups = cgroups
        self._slots = 0

    def look(self, inits: list[int]) -> dict[str, list[str]]:
        """What is in the guest: see inspection.look. ``inits`` are those of roots that wait."""
        return inspection.look(self._plan, inits)

    def make(self) -> Job:
        """A root, ready to be assigned. JobError with what went wrong, after which nothing is left of it."""
        self._slots += 1
        slot = self._slots
        folder = f"{self._plan.folder}/{slot}"
        os.makedirs(folder, mode=0o755, exist_ok=True)  # the host may have put a snapshot's files there
        group = JobGroup(f"job{slot}") if self._cgroups else None
        ours, theirs = socket.socketpair()
        problem, report = os.pipe()
        descriptor = group.open() if group else None
        monitor = os.fork()
        if monitor == 0:
            let_go_of_all_but(theirs.fileno(), report, descriptor)
            self._become(slot, folder, group, descriptor, theirs, report)
        theirs.close()
        os.close(report)
        if descriptor is not None:
            os.close(descriptor)
        os.waitpid(monitor, 0)
        pid, error = _read_report(problem)
        job = Job(slot, pid, Link(ours.fileno(), ours), ours, folder, group)
        if error:
            _abandon(job)
            raise JobError(f"a job root could not be made: {error}")
        return job

    def name(self, job: Job, name: str, hostname: str) -> None:
        """Give a root its name; where the host can look, its folder tells of it for as long as it is open."""
        job.name = name
        if self._plan.shared_kernel:
            with open(f"{job.folder}/{LABEL}", "w", encoding="utf-8") as file:
                json.dump({"name": name, "hostname": hostname}, file)

    def _become(  # noqa: PLR0917 - the descriptors and names one fork carries over
        self,
        slot: int,
        folder: str,
        group: JobGroup | None,
        descriptor: int | None,
        theirs: socket.socket,
        report: int,
    ) -> None:
        """In the fork: unshare, fork again to be process 1 of the new namespaces, build the root, serve."""
        try:
            if group is not None:
                group.enter()
            plan = roots.RootPlan(**{**vars(self._plan), "folder": folder})
            roots.unshare(plan, cgroups=self._cgroups)
            pid = os.fork()
            if pid:
                os.write(report, f"{_PID}{pid}\n".encode())
                os._exit(0)
            if self._network is not None:
                self._network.wire_inside(slot)
            elif plan.network:
                linux.loopback_up()
            roots.enter(plan, cgroups=self._cgroups)
        except BaseException as error:  # noqa: BLE001 - a fork must never return into the agent's loop
            os.write(report, f"{error}\n".encode())
            os._exit(1)
        os.close(report)
        gc.freeze()
        init.serve(theirs, descriptor, single_user=self._plan.single_user)


def let_go_of_all_but(*kept: int | None) -> None:
    """In a fork of the agent: close what is the agent's, or the end of a pipe would never be seen elsewhere."""
    signal.set_wakeup_fd(-1)  # the agent's own pipe, whose number is free from here on
    low = _FIRST_FREE
    for descriptor in sorted(one for one in kept if one is not None):
        os.closerange(low, descriptor)
        low = descriptor + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _read_report(problem: int) -> tuple[int, str]:
    """The init's process id, 0 if there is none, and what went wrong, if anything."""
    with os.fdopen(problem, "rb") as pipe:
        said = pipe.read(_MAX_REPORT).decode(errors="replace")
    pids = [line for line in said.splitlines() if line.startswith(_PID)]
    error = " ".join(line for line in said.splitlines() if line and line not in pids)
    pid = int(pids[0].removeprefix(_PID)) if pids else 0
    return pid, error or ("" if pid else "its process ended")


def _abandon(job: Job) -> None:
    """Leave nothing of a root that could not be made."""
    end(job)
    if job.pid:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(job.pid, 0)
    bury(job)


def end(job: Job) -> None:
    """Kill the init, and so every process of the job, and free what the job held in the guest."""
    job.ended = True
    if job.pid and not job.reaped:
        os.kill(job.pid, signal.SIGKILL)
    for stream in [*job.streams.values(), *job.lingering]:
        stream.close()
    job.link.drop()
    job.socket.close()


def bury(job: Job) -> None:
    """The job's init has been reaped: its control group and its disk space go, the latter in the background."""
    if job.group is not None:
        job.group.remove()
    with contextlib.suppress(OSError):  # most have none
        os.unlink(f"{job.folder}/{LABEL}")
    with contextlib.suppress(OSError):  # no process to be had: the space stays taken for the VM's life
        if os.fork() == 0:
            shutil.rmtree(job.folder, ignore_errors=True)
            os._exit(0)
