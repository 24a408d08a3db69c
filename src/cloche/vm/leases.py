"""Leases: who owns which VM of this machine, so that what a killed owner left can be told and cleared.

Each live VM has a folder with an ``owner.lock`` that its owner keeps locked: a lock ends with its owner,
however that ends. ``vm.json`` names the VM's main process by pid and start time, so that a pid used again by
somebody else is never killed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import select
import shutil
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.records import record

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_LOCK = "owner.lock"
_RECORD = "vm.json"
_MAX_RECORD = 4096
_ATTEMPTS = 100
_RETRY_PAUSE = 0.001
_REMOVAL_PAUSE = 0.01
_OCTAL = re.compile(r"\\([0-7]{3})")  # how mountinfo writes blanks
KILL_TIMEOUT = 5.0
"""Seconds a killed process has to be gone."""


@record
class ProcessRecord:
    """A process told apart from any other: by pid, start (clock ticks since boot) and that boot's id."""

    pid: int
    start_time: int
    host_boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessRecord | None:
        """Describe a running process; ``None`` if there is none."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return None
        after_name = stat.rpartition(b")")[2].split()  # the name may hold anything; fields from the third on
        return cls(pid, int(after_name[19]), _host_boot())

    def end(self, timeout: float = KILL_TIMEOUT) -> bool:
        """Kill the process if it is still this one and wait for its end; whether there was one to kill."""
        try:
            descriptor = os.pidfd_open(self.pid)  # from here on the pid cannot come to mean another process
        except ProcessLookupError:
            return False
        try:
            if ProcessRecord.of(self.pid) != self:
                return False
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            ended = select.poll()
            ended.register(descriptor, select.POLLIN)
            if not ended.poll(timeout * 1000):
                raise TimeoutError(f"process {self.pid} did not end within {timeout:g} s of being killed")
        finally:
            os.close(descriptor)
        return True


def _host_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class Lease:
    """A VM's folder, owned by this process until dropped. A context manager: leaving it drops it."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.folder = folder
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, directory: Path, vm_id: str) -> Lease:
        """Make and lock ``directory/vm_id`` (mode 0700). OSError if it is there already or cannot be made."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = directory / vm_id
        folder.mkdir(mode=0o700)
        for _ in range(_ATTEMPTS):
            # Whoever collects may find the folder before its lock is ours, and remove it: then make it again.
            folder.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                descriptor = _lock(folder)
                if descriptor is not None:
                    return cls(folder, descriptor)
            time.sleep(_RETRY_PAUSE)
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(folder))

    def record_process(self, pid: int) -> None:
        """Name the VM's main process: it is killed when this owner is found dead. Its latest call counts."""
        record = ProcessRecord.of(pid)
        if record is not None:
            partial = self.folder / f"{_RECORD}.new"
            partial.write_text(json.dumps(asdict(record)), encoding="ascii")
            partial.replace(self.folder / _RECORD)

    def empty(self) -> None:
        """Remove what the VM kept in the folder; the folder stays, and stays ours. OSError as ``drop``."""
        _remove_contents(self.folder)

    def drop(self) -> None:
        """Remove the folder and give up the lock; again is fine. OSError says what could not be removed."""
        if self._descriptor is not None:
            try:
                _remove(self.folder)
            finally:
                os.close(self._descriptor)
                self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()


@record
class Collected:
    """What was found of a dead owner's VM: the process killed, if one still ran; what could not be done."""

    vm_id: str
    killed: int | None = None
    problem: str | None = None


def collect(directory: Path) -> list[Collected]:
    """End and remove every VM whose owner is dead. Never raises for one of them: see ``problem``."""
    try:
        folders = sorted(entry for entry in directory.iterdir() if entry.is_dir() and not entry.is_symlink())
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = (_collect(folder) for folder in folders)
    return [collected for collected in found if collected is not None]


def _collect(folder: Path) -> Collected | None:
    try:
        descriptor = _lock(folder)
    except OSError:
        return None  # gone meanwhile, or not ours to open
    if descriptor is None:
        return None
    killed = None
    try:
        record = _read(folder)
        if record is not None and record.end():
            killed = record.pid
        _remove(folder)
    except OSError as wrong:
        return Collected(folder.name, killed, str(wrong))
    finally:
        os.close(descriptor)
    return Collected(folder.name, killed)


def _lock(folder: Path) -> int | None:
    """Lock a folder; ``None`` when another holds it, or removed it while we came."""
    path = folder / _LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def _read(folder: Path) -> ProcessRecord | None:
    try:
        with (folder / _RECORD).open("rb") as file:
            told = json.loads(file.read(_MAX_RECORD))
        return ProcessRecord(int(told["pid"]), int(told["start_time"]), str(told["host_boot"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: half removed, it is still told to be a dead owner's."""
    _remove_contents(folder)
    _remove_emptied(folder)


def _remove_contents(folder: Path) -> None:
    """Remove everything in a folder but its lock."""
    mounts = _mounts_below(folder)
    if mounts:
        raise OSError(errno.EBUSY, f"something is still mounted at {', '.join(mounts)}", str(folder))
    for entry in list(folder.iterdir()):
        if entry.name == _LOCK:
            continue
        if entry.is_dir() and not entry.is_symlink():
            _remove_tree(entry)
        else:
            entry.unlink(missing_ok=True)


def _remove_emptied(folder: Path) -> None:
    """Remove a folder that holds nothing but its lock, which whoever looks at it meanwhile makes anew."""
    for _ in range(_ATTEMPTS):
        (folder / _LOCK).unlink(missing_ok=True)
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as wrong:
            if wrong.errno != errno.ENOTEMPTY:
                raise
        else:
            return
    folder.rmdir()


def _remove_tree(folder: Path) -> None:
    """Remove a folder, even one in which processes that were killed are still ending."""
    for _ in range(_ATTEMPTS):
        try:
            shutil.rmtree(folder)
        except PermissionError:
            _open_up(folder)
        except OSError as wrong:
            if wrong.errno not in {errno.ENOENT, errno.ENOTEMPTY}:
                raise
        if not folder.exists():
            return
        time.sleep(_REMOVAL_PAUSE)
    shutil.rmtree(folder)


def _open_up(folder: Path) -> None:
    """Let us into folders whose mode keeps even their owner out: an overlay's work folders have mode 000."""
    folder.chmod(0o700)
    for parent, names, _ in os.walk(folder):
        for name in names:
            if not (inner := Path(parent, name)).is_symlink():
                inner.chmod(0o700)


def _mounts_below(folder: Path) -> list[str]:
    """Where anything is mounted in a folder: removing would reach through it."""
    prefix = f"{folder.resolve()}/"
    try:
        lines = (
            Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        )
    except OSError:
        return []
    places = (_OCTAL.sub(lambda found: chr(int(found[1], 8)), line.split()[4]) for line in lines)
    return [place for place in places if place.startswith(prefix)]
