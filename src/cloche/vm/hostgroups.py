"""Control groups of their own for the processes of VMs, on hosts that let us make some.

That is where cgroup v2 is mounted and the group we run in is ours to divide, as systemd makes it for a service or
scope with ``Delegate=yes``. Elsewhere nothing is done: the VM's own size still holds inside. The rules (delegation;
no processes in a group that hands controllers on) are in
https://docs.kernel.org/admin-guide/cgroup-v2.html and https://systemd.io/CGROUP_DELEGATION/.

Standard library only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger(__name__)

ROOT = Path("/sys/fs/cgroup")
TOLD = Path("/proc/self/cgroup")
LEAF = "cloche-host"
"""The group that our own processes move to, so that the one above can be divided."""

_FILES = {"cpu": "cpu.max", "memory": "memory.max", "pids": "pids.max"}
_MIB = 1024 * 1024
_OVERHEAD = {False: 512 * _MIB, True: 1536 * _MIB}
"""What QEMU takes besides the guest's memory, at most; under emulation it keeps up to 1 GiB of translated code."""
_THREADS = 128
"""Threads of QEMU besides the vCPUs': its disks have up to 64."""
_PERIOD = 100_000
_MOVES = 10
_REMOVALS, _PAUSE = 20, 0.001


class Delegation(NamedTuple):
    """The group below which VMs get theirs and what can be bounded there, or the ``problem`` that prevents it."""

    group: Path | None
    controllers: tuple[str, ...] = ()
    problem: str = ""


def find(root: Path = ROOT, told: Path = TOLD) -> Delegation:
    """Look whether this process may make groups; changes nothing."""
    try:
        return _find(root, told)
    except OSError as wrong:
        return _none(f"{wrong.filename}: {wrong.strerror}")


def _find(root: Path, told: Path) -> Delegation:
    if not (root / "cgroup.controllers").exists():
        return _none("cgroup v2 is not what this host has at /sys/fs/cgroup")
    own = next((line[3:] for line in told.read_text().splitlines() if line.startswith("0::/")), "/..")
    if own.startswith("/.."):
        return _none("the group we run in cannot be seen from here")
    group = root / own.strip("/")
    if group.name == LEAF:
        group = group.parent
    known = _words(group / "cgroup.controllers")
    controllers = tuple(name for name in _FILES if name in known)
    if not controllers:
        return _none(f"no controller of {', '.join(_FILES)} is delegated to {own}")
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control"):
        if not os.access(path, os.W_OK):
            return _none(f"the group we run in, {own}, is not ours to divide")
    found = Delegation(group, controllers)
    if not _divided(found) and any(not _is_ours(pid) for pid in _to_move(group)):
        return _none(f"other processes share the group we run in, {own}")
    return found


def _none(problem: str) -> Delegation:
    return Delegation(None, problem=problem)


def _words(path: Path) -> list[str]:
    return path.read_text().split()


def _divided(found: Delegation) -> bool:
    return found.group is None or set(found.controllers) <= set(
        _words(found.group / "cgroup.subtree_control")
    )


def _to_move(group: Path) -> list[int]:
    """Return the processes that keep a group from being divided; the hierarchy's root, which has no type, may be."""
    if not (group / "cgroup.type").exists():
        return []
    return [int(pid) for pid in _words(group / "cgroup.procs")]


def _is_ours(pid: int) -> bool:
    """Tell whether a process is this one or descends from it."""
    while pid > 1:
        if pid == os.getpid():
            return True
        try:
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return True  # gone, and with it what it stood in the way of
        pid = int(status.rpartition(")")[2].split()[1])
    return False


class HostGroup:
    """The group of one VM. Removing it is its owner's to do, once its processes are gone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, pid: int) -> None:
        """Move a process in. One that cannot be moved goes on without."""
        try:
            (self.path / "cgroup.procs").write_text(str(pid))
        except OSError as wrong:
            _log.warning("Process %s has no limits on this host: %s", pid, wrong)

    @property
    def oom_kills(self) -> int:
        """How many of its processes this host has killed for want of memory."""
        with contextlib.suppress(OSError, ValueError):
            words = _words(self.path / "memory.events")
            return int(words[words.index("oom_kill") + 1])
        return 0

    def remove(self) -> None:
        """Remove the group; again is fine. The kernel may take a moment after the last process has gone."""
        for _ in range(_REMOVALS):
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(_PAUSE)
            else:
                return
        _log.warning("The control group %s could not be removed", self.path)


class HostGroups:
    """Makes groups where it may; where not, ``make`` gives none."""

    def __init__(self, delegation: Delegation | None = None) -> None:
        self._delegation = delegation
        self._ready = False

    def make(self, name: str, *, cpus: int, memory: int, emulated: bool) -> HostGroup | None:
        """Make the group of a VM of this size (``memory`` in bytes); ``None`` where this host does not let us."""
        if self._delegation is None:
            self._delegation = find()
        group = self._delegation.group
        if group is None:
            return None
        made = HostGroup(group / name)
        sizes = limits(cpus, memory, emulated=emulated)
        try:
            self._divide(self._delegation)
            made.path.mkdir()
            for controller in self._delegation.controllers:
                (made.path / _FILES[controller]).write_text(sizes[_FILES[controller]])
        except OSError as wrong:
            _log.warning("VMs have no limits on this host: %s", wrong)
            self._delegation = _none(str(wrong))
            with contextlib.suppress(OSError):
                made.path.rmdir()
            return None
        return made

    def _divide(self, found: Delegation) -> None:
        """Have the group hand its controllers on, which it may only when no process is in it itself."""
        group = found.group
        if self._ready or group is None:
            return
        if not _divided(found):
            for _ in range(_MOVES):  # a process may have a child while we look
                if not (pids := _to_move(group)):
                    break
                (group / LEAF).mkdir(exist_ok=True)
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        (group / LEAF / "cgroup.procs").write_text(str(pid))
            (group / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in found.controllers))
        self._ready = True


def limits(cpus: int, memory: int, *, emulated: bool) -> dict[str, str]:
    """Return the group's limits by file: the VM's size, and what QEMU needs besides."""
    return {
        "memory.max": str(memory + _OVERHEAD[emulated]),
        "cpu.max": f"{cpus * _PERIOD + _PERIOD // 2} {_PERIOD}",
        "pids.max": str(cpus + _THREADS),
    }
