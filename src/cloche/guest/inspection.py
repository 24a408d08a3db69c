"""What is in the guest, as lines of text: what a fresh copy of its template would show too, and nothing else.

Read from /proc and the scratch disk by the agent itself: nothing is started for it. Everything is bounded, since
a job may have left any number of anything behind (proc(5), proc_pid_mountinfo(5)).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cloche.guest.roots import RootPlan

_MAX_LINES = 256
_MAX_LINE = 400
_MAX_FILE = 1024 * 1024
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD of the kernel's sched.h
_FLAGS = 6  # the place of `flags` after the name in /proc/PID/stat
_SOCKETS = ("tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6")
_DIGEST = 12


def look(plan: RootPlan, inits: Iterable[int]) -> dict[str, list[str]]:
    """What there is, by kind. ``inits`` are the processes 1 of job roots that wait; ``plan.folder`` holds roots.

    Where the kernel is the host's, its mounts and its network are not the guest's to show: only its job roots' are.
    """
    places = {f"root {number}": pid for number, pid in enumerate(inits, 1)}
    networks = dict(places) if plan.network else {}
    if not plan.shared_kernel:
        places["guest"] = networks["guest"] = os.getpid()
    return {
        "processes": _bounded(_processes()),
        "mounts": _bounded(_each(places, _mounts)),
        "files": _bounded(_files(plan.folder)),
        "environment": _bounded(f"{name} {_digest(value)}" for name, value in os.environ.items()),
        "sockets": _bounded(_each(networks, _sockets)),
        "interfaces": _bounded(_each(networks, _interfaces)),
    }


def _bounded(lines: Iterator[str]) -> list[str]:
    """The first lines of many, in order; that there are more is a line too."""
    kept: list[str] = []
    for line in lines:
        if len(kept) == _MAX_LINES:
            kept.append("and more")
            break
        kept.append(line[:_MAX_LINE])
    return sorted(kept)


def _each(places: dict[str, int], look_at: Callable[[int], Iterator[str]]) -> Iterator[str]:
    for name, pid in places.items():
        for line in look_at(pid):
            yield f"{name}: {line}"


def _read(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read(_MAX_FILE)
    return ""


def _processes() -> Iterator[str]:
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            name, _, rest = _read(f"/proc/{entry}/stat").partition(" (")[2].rpartition(")")
            fields = rest.split()
            if len(fields) > _FLAGS and not int(fields[_FLAGS]) & _KERNEL_THREAD:
                yield name


def _mounts(pid: int) -> Iterator[str]:
    for line in _read(f"/proc/{pid}/mountinfo").splitlines():
        place, _, source = line.partition(" - ")
        _id, _parent, _device, root, point, options, *_ = place.split()
        yield f"{point} {source.partition(' ')[0]} {root} {options}"


def _files(folder: str) -> Iterator[str]:
    waiting = [folder]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    is_folder = stat.S_ISDIR(status.st_mode)
                    size = "" if is_folder else f" {status.st_size}"
                    yield f"{entry.path[len(folder) + 1 :]} {status.st_mode:o} {status.st_uid}{size}"
                    if is_folder:
                        waiting.append(entry.path)


def _sockets(pid: int) -> Iterator[str]:
    """Their addresses and states (proc_net(5)), and named ones of this machine's own."""
    for kind in _SOCKETS:
        for line in _read(f"/proc/{pid}/net/{kind}").splitlines()[1:]:
            _number, local, remote, state, *_ = line.split()
            yield f"{kind} {local} {remote} {state}"
    for line in _read(f"/proc/{pid}/net/packet").splitlines()[1:]:
        yield f"packet {line.split()[3]}"
    for line in _read(f"/proc/{pid}/net/unix").splitlines()[1:]:
        path = line.split(maxsplit=7)[7:]
        if path:
            yield f"unix {path[0]}"


def _interfaces(pid: int) -> Iterator[str]:
    for line in _read(f"/proc/{pid}/net/dev").splitlines()[2:]:
        yield line.partition(":")[0].strip()


def _digest(value: str) -> str:
    return hashlib.sha256(os.fsencode(value)).hexdigest()[:_DIGEST]
