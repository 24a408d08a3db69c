"""The guest's control groups: one for each job with its limits, one below it for each program (cgroups(7))."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from cloche.guest import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = "/sys/fs/cgroup"
_CONTROLLERS = "+cpu +memory +pids"
_KEPT_FREE = 64 * 1024 * 1024
"""Bytes for the agent and the kernel that no job gets."""
_PROCESS = 512 * 1024
"""Bytes of the guest's memory for each process of a job: what a forked shell takes."""
_FIRST = "10000"  # the largest weight there is; others have 100
_FREEZE_DEADLINE = 0.2  # seconds
_PAUSE = 0.001
_MAX_EVENTS = 4096


def mount() -> None:
    """Mount the hierarchy and switch the controllers on; only the guest's process 1 does this."""
    # favordynmods: moving a process into its program's group happens for every step, and is ten times dearer without.
    linux.mount(
        "cgroup2", _ROOT, "cgroup2", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC, "favordynmods"
    )
    _write(f"{_ROOT}/cgroup.subtree_control", _CONTROLLERS)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def is_populated(events: int) -> bool:
    """Whether a group has living processes, by a descriptor of its ``cgroup.events``."""
    return b"populated 1" in os.pread(events, _MAX_EVENTS, 0)


class JobGroup:
    """A job's control group."""

    def __init__(self, name: str) -> None:
        self.path = f"{_ROOT}/{name}"
        os.makedirs(f"{self.path}/init")
        # Each program has an equal share of the processor, however many processes it makes; the init goes first.
        _write(f"{self.path}/cgroup.subtree_control", "+cpu +pids")
        _write(f"{self.path}/init/cpu.weight", _FIRST)

    def open(self) -> int:
        """A descriptor of the group's folder."""
        return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)

    def enter(self) -> None:
        """Move the calling process, a job's init, into the group."""
        _write(f"{self.path}/init/cgroup.procs", "0")

    def limit(self, memory: int | None, pids: int | None) -> None:
        """Bound the whole job: bytes of memory, number of processes; without a number, by what the guest has.

        Either bound is there to be met by the job's own programs before the guest as a whole comes to a stop.
        """
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        _write(f"{self.path}/memory.max", str(memory or total - min(_KEPT_FREE, total // 8)))
        _write(f"{self.path}/pids.max", str(pids or total // _PROCESS))

    def oom_kills(self) -> int:
        """How many of the job's processes the kernel has killed for memory."""
        counts = dict(line.split() for line in _read(f"{self.path}/memory.events").splitlines())
        return int(counts.get("oom_kill", "0"))

    def signal(self, stream: int, number: int, init: int) -> bool:
        """Send a signal to all processes of a program; SIGKILL takes even those that fork meanwhile.

        False, and nothing sent, while there are none, or ``init``, the job's own, is among them to start them.
        """
        path = f"{self.path}/s{stream}"
        members = self._members(path)
        if not members or init in members:
            return False
        if number == signal.SIGKILL:
            with contextlib.suppress(OSError):
                _write(f"{path}/cgroup.kill", "1")
            return True
        with self._frozen(path):
            for pid in self._members(path):
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
        return True

    @staticmethod
    @contextlib.contextmanager
    def _frozen(path: str) -> Iterator[None]:
        """Stop the group for a moment, so that no process which is being forked meanwhile is missed."""
        with contextlib.suppress(OSError):
            _write(f"{path}/cgroup.freeze", "1")
            until = time.monotonic() + _FREEZE_DEADLINE
            while "frozen 1" not in _read(f"{path}/cgroup.events") and time.monotonic() < until:
                time.sleep(_PAUSE)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                _write(f"{path}/cgroup.freeze", "0")

    @staticmethod
    def _members(path: str) -> list[int]:
        try:
            return [int(line) for line in _read(f"{path}/cgroup.procs").split()]
        except OSError:
            return []

    def open_if_populated(self, stream: int) -> int | None:
        """A descriptor that is ready (EPOLLPRI) whenever the last process of a program may have ended.

        ``None`` when the program has none.
        """
        path = f"{self.path}/s{stream}/cgroup.events"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        if is_populated(descriptor):
            return descriptor
        os.close(descriptor)
        return None

    def ended(self, stream: int) -> None:
        """A program ended; its group goes unless it left processes behind."""
        with contextlib.suppress(OSError):
            os.rmdir(f"{self.path}/s{stream}")

    def remove(self) -> None:
        """The job has no processes any more."""
        for folder, _, _ in os.walk(self.path, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
