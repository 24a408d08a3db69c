"""What is in the guest, as lines of text: what a fresh copy of its template would show too, and nothing else.

Read from /proc and the scratch disk by the agent itself: nothing is started for it. Everything is bounded, since
a job may have left any number of anything behind (proc(5), proc_pid_mountinfo(5), proc_pid_net(5)).
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
_CHUNK = 64 * 1024
_CHUNKS = 16
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
    """A file's beginning; the layers of ``open`` cost a guest under emulation more than the reading."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    parts: list[bytes] = []
    try:
        while (part := os.read(descriptor, _CHUNK)) and len(parts) < _CHUNKS:
            parts.append(part)
    except OSError:
        pass  # a process that ended meanwhile
    finally:
        os.close(descriptor)
    return b"".join(parts).decode(errors="replace")


def _processes() -> Iterator[str]:
    """Their names. All are descendants of the agent, process 1: whoever loses its parent becomes a child of it.

    The kernel's own threads, many more, are not.
    """
    waiting = [str(os.getpid())]
    while waiting:
        pid = waiting.pop()
        yield _read(f"/proc/{pid}/comm").rstrip("\n")
        with contextlib.suppress(FileNotFoundError):  # it ended meanwhile
            for thread in os.listdir(f"/proc/{pid}/task"):
                waiting += _read(f"/proc/{pid}/task/{thread}/children").split()


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
    """How many there are of each protocol: ``TCP inuse 1``; the other counts are all networks' together."""
    for kind in ("sockstat", "sockstat6"):
        for line in _read(f"/proc/{pid}/net/{kind}").splitlines():
            protocol, _, counts = line.partition(": ")
            yield " ".join([protocol, *counts.split()[:2]])


def _interfaces(pid: int) -> Iterator[str]:
    for line in _read(f"/proc/{pid}/net/dev").splitlines()[2:]:
        yield line.partition(":")[0].strip()


def _digest(value: str) -> str:
    return hashlib.sha256(os.fsencode(value)).hexdigest()[:_DIGEST]
