"""The files that a job wrote (its overlay's upper layer) as one archive, and back.

Programs of the job may still run while they are read, and mean ill: nothing is opened by a path through folders
that are the guest's. Owners, modes, times, links, extended attributes and the overlay's marks of what was removed
(devices 0:0, https://docs.kernel.org/filesystems/overlayfs.html#whiteouts-and-opaque-directories) are kept as far
as the user may set them. Sockets are not: whoever listened there is not kept either.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import stat
import tarfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import IO

_MAX_DEPTH = 128  # folders in folders; each holds a descriptor open
_ATTRIBUTE = "CLOCHE.xattr."
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TYPES = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
}


def pack(folder: Path, archive: Path, most: int) -> None:
    """Write a folder's content to an archive (mode 0600), at most ``most`` bytes of it. OSError."""
    descriptor = os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with (
        os.fdopen(descriptor, "wb") as file,
        tarfile.open(
            fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        ) as tar,
        _opened(str(folder), None, _FOLDER) as (top, about),
    ):
        _Packer(tar, most).folder(top, about, ".", 0)


class _Packer:
    def __init__(self, tar: tarfile.TarFile, most: int) -> None:
        self._tar = tar
        self._left = most
        self._first: dict[tuple[int, int], str] = {}

    def folder(self, descriptor: int, about: os.stat_result, path: str, depth: int) -> None:
        """Add a folder, then what is in it."""
        if depth > _MAX_DEPTH:
            raise OSError(errno.ELOOP, f"more than {_MAX_DEPTH} folders are in each other", path)
        self._tar.addfile(_described(path, about, _attributes(descriptor)))
        for name in sorted(set(os.listdir(descriptor))):  # once each, whatever is renamed meanwhile
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # replaced meanwhile
                self._entry(descriptor, name, f"{path}/{name}", depth)

    def _entry(self, parent: int, name: str, path: str, depth: int) -> None:
        about = os.stat(name, dir_fd=parent, follow_symlinks=False)
        match stat.S_IFMT(about.st_mode):
            case stat.S_IFDIR:
                with _opened(name, parent, _FOLDER) as (descriptor, about):
                    self.folder(descriptor, about, path, depth + 1)
            case stat.S_IFREG:
                with _opened(name, parent, _FILE) as (descriptor, about):
                    self._file(descriptor, about, path)
            case stat.S_IFLNK:
                entry = _described(path, about, {})
                entry.linkname = os.readlink(name, dir_fd=parent)
                self._tar.addfile(entry)
            case stat.S_IFIFO | stat.S_IFCHR:
                self._tar.addfile(_described(path, about, {}))

    def _file(self, descriptor: int, about: os.stat_result, path: str) -> None:
        if not stat.S_ISREG(about.st_mode):
            return  # it was replaced meanwhile
        entry = _described(path, about, _attributes(descriptor))
        known = self._first.setdefault((about.st_dev, about.st_ino), path)
        if known != path:
            entry.type, entry.linkname = tarfile.LNKTYPE, known
            self._tar.addfile(entry)
            return
        self._left -= about.st_size
        if self._left < 0:
            raise OSError(errno.EFBIG, "the files are larger than the VM's disk may be", path)
        entry.size = about.st_size
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            self._tar.addfile(entry, _Whole(file))


class _Whole:
    """A file that a program may cut short while it is read: what is missing then is zeros."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = 0, /) -> bytes:
        return self._file.read(size).ljust(size, b"\0")


@contextlib.contextmanager
def _opened(name: str, parent: int | None, flags: int) -> Iterator[tuple[int, os.stat_result]]:
    """Open a file of the job's, without following a link: its descriptor, and what it is."""
    place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        about, itself = os.fstat(place), f"/proc/self/fd/{place}"
        if stat.S_ISLNK(about.st_mode):
            raise FileNotFoundError(errno.ENOENT, "it was replaced meanwhile", name)
        with _opened_up(itself, about.st_mode):
            descriptor = os.open(itself, flags & ~os.O_NOFOLLOW)
            try:
                yield descriptor, about
            finally:
                os.close(descriptor)
    finally:
        os.close(place)


@contextlib.contextmanager
def _opened_up(path: str, mode: int) -> Iterator[None]:
    """Let us read what keeps its owner out: only root may without being let."""
    needed = 0o500 if stat.S_ISDIR(mode) else 0o400
    if os.geteuid() == 0 or mode & needed == needed:
        yield
        return
    os.chmod(path, stat.S_IMODE(mode) | needed)  # noqa: PTH101 - a descriptor has no path
    try:
        yield
    finally:
        os.chmod(path, stat.S_IMODE(mode))  # noqa: PTH101 - as above


def _described(path: str, about: os.stat_result, attributes: dict[str, bytes]) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type = _TYPES[stat.S_IFMT(about.st_mode)]
    entry.mode = stat.S_IMODE(about.st_mode)
    entry.uid, entry.gid = about.st_uid, about.st_gid
    entry.mtime = about.st_mtime
    if entry.ischr():
        entry.devmajor, entry.devminor = os.major(about.st_rdev), os.minor(about.st_rdev)
    entry.pax_headers = {
        f"{_ATTRIBUTE}{name}": base64.b64encode(value).decode("ascii") for name, value in attributes.items()
    }
    return entry


def _attributes(descriptor: int) -> dict[str, bytes]:
    """The extended attributes that we may read."""
    found = {}
    with contextlib.suppress(OSError):  # a file system may have none
        for name in os.listxattr(descriptor):
            with contextlib.suppress(OSError):
                found[name] = os.getxattr(descriptor, name)
    return found


def unpack(archive: Path, folder: Path) -> None:
    """Make a folder, which must not exist, of what ``pack`` wrote. OSError, also for what is no such archive."""
    folders: list[tarfile.TarInfo] = []
    here = str(folder.resolve())
    try:
        with tarfile.open(archive, "r:", encoding="utf-8", errors="surrogateescape") as tar:
            folder.mkdir(mode=0o700)
            for entry in tar:
                path = os.path.normpath(f"{here}/{entry.name}")
                _check(path, here)
                if entry.isdir():
                    os.makedirs(path, mode=0o700, exist_ok=True)  # noqa: PTH103 - names are not Path's to change
                    folders.append(entry)
                else:
                    _make(tar, entry, path, here)
            for entry in reversed(folders):  # a folder's own mode may keep its content out
                _finish(entry, os.path.normpath(f"{here}/{entry.name}"))
    except tarfile.TarError as wrong:
        raise OSError(errno.EINVAL, f"the archive is damaged: {wrong}", str(archive)) from wrong


def _check(path: str, here: str) -> None:
    inside = path == here or path.startswith(f"{here}/")
    parent = os.path.dirname(path)  # noqa: PTH120 - names are not Path's to change
    if not inside or (path != here and os.path.realpath(parent) != parent):
        raise OSError(errno.EINVAL, "the archive is damaged: it leaves its folder", path)


def _make(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: str, here: str) -> None:
    if entry.islnk():
        source = os.path.normpath(f"{here}/{entry.linkname}")
        _check(source, here)
        os.link(source, path, follow_symlinks=False)
        return
    if entry.issym():
        os.symlink(entry.linkname, path)  # noqa: PTH211 - names are not Path's to change
    elif entry.isfifo():
        os.mkfifo(path)
    elif entry.ischr():
        os.mknod(path, stat.S_IFCHR | entry.mode, os.makedev(entry.devmajor, entry.devminor))
    else:
        tar.makefile(entry, path)
    _finish(entry, path)


def _finish(entry: tarfile.TarInfo, path: str) -> None:
    if os.geteuid() == 0:
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    for name, value in entry.pax_headers.items():
        if name.startswith(_ATTRIBUTE):
            with contextlib.suppress(OSError):  # what is not ours to set
                os.setxattr(
                    path, name.removeprefix(_ATTRIBUTE), base64.b64decode(value), follow_symlinks=False
                )
    if not entry.issym():
        os.chmod(path, entry.mode)  # noqa: PTH101 - names are not Path's to change
    os.utime(path, (entry.mtime, entry.mtime), follow_symlinks=False)
