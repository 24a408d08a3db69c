"""Unpacks one tar archive into a directory; a program of its own, run as root of a machine or user namespace.

It starts what decompresses, then makes the directory its own root (chroot) before it reads the first byte: no
path, link or parent in the archive can mean anything outside. Devices, sockets and pipes are skipped, sizes
are bounded, and memory too. Uses the standard library only, all of it loaded before the root changes.

    unpack.py DIRECTORY LIMIT ARCHIVE [--layer]

LIMIT bounds the uncompressed archive in bytes. With ``--layer``, whiteouts remove what earlier layers left (the
OCI image specification, "Image Layer Filesystem Changeset"). Prints ``progress BYTES`` lines and, last, one line
of JSON: ``{"bytes": …, "entries": …, "skipped": …}``. An archive it refuses ends in ``error: …`` and status 1.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import os
import resource
import shutil
import stat
import subprocess
import sys
import tarfile
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Protocol

    class Readable(Protocol):
        """What an archive is read from."""

        def read(self, size: int, /) -> bytes:
            """Read at most ``size`` bytes; none at the end."""


GZIP = b"\x1f\x8b"
XZ = b"\xfd7zXZ\0"
ZSTD = b"\x28\xb5\x2f\xfd"

MAX_ENTRIES = 2_000_000
MAX_MEMORY = 768 * 1024 * 1024
"""Bytes of address space: headers of an archive can be as long as it says, and are read whole."""

_CHUNK = 1024 * 1024
_PROGRESS_EVERY = 16 * 1024 * 1024
_MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp")
_LARGEST_ID = 2**32 - 2
_LATEST = 2**33
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


class Refused(Exception):  # noqa: N818 - what happened to the archive, not a mistake of the caller
    """The archive is damaged or asks for what no archive may."""


class Bounded(io.RawIOBase):
    """Reads from another stream, at most so many bytes."""

    def __init__(self, source: Readable, limit: int, progress: Callable[[int], None]) -> None:
        super().__init__()
        self.count = 0
        self._source = source
        self._limit = limit
        self._progress = progress
        self._reported = 0

    def readable(self) -> bool:
        """Tell that it is for reading."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read like the source. Raises Refused past the limit."""
        data = self._source.read(_CHUNK if size < 0 else size)
        self.count += len(data)
        if self.count > self._limit:
            raise Refused(f"it is larger than {self._limit} bytes when unpacked")
        if self.count - self._reported >= _PROGRESS_EVERY:
            self._reported = self.count
            self._progress(self.count)
        return data


class _Member(tarfile.TarInfo):
    """A member whose header must be whole: tarfile takes a damaged one for the archive's end."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _Member:
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]  # not in typeshed
            raise
        except tarfile.HeaderError as error:
            raise Refused(f"it is damaged at byte {tarfile_.offset}: {error}") from error


class Unpacker:
    """Unpacks one archive into the current root."""

    def __init__(self, *, layer: bool) -> None:
        self.entries = 0
        self.skipped = 0
        self._layer = layer
        self._written: set[str] = set()

    def unpack(self, stream: Bounded) -> None:
        """Unpack a whole stream. Raises Refused, tarfile.TarError, or what the decompressor does."""
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member, encoding="utf-8") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # not in typeshed; keeps every header read
                self.entries += 1
                if self.entries > MAX_ENTRIES:
                    raise Refused(f"it has more than {MAX_ENTRIES} entries")
                self._take(archive, member)

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = _inside(member.name)
        parent, _, name = path.rpartition("/")
        if self._layer and name == _OPAQUE:
            self._hide_older(parent)
        elif self._layer and name.startswith(_WHITEOUT):
            _remove(_inside(f"{parent}/{name.removeprefix(_WHITEOUT)}"))
        elif member.isdir():
            self._directory(path, member)
        elif member.issparse():
            raise Refused(f"{member.name!r} is a sparse file")
        elif member.isreg() or member.islnk() or member.issym():
            self._file(archive, path, member)
        else:
            self.skipped += 1

    def _directory(self, path: str, member: tarfile.TarInfo) -> None:
        self._remember(path)
        if not _is_directory(path):
            _remove(path)
            os.makedirs(path, 0o755)  # noqa: PTH103 - os functions, which take no imports after the chroot
        _set_owner(path, member)
        os.chmod(path, member.mode & 0o7777)  # noqa: PTH101 - as above

    def _file(self, archive: tarfile.TarFile, path: str, member: tarfile.TarInfo) -> None:
        if path == ".":
            raise Refused("its root is not a directory")
        self._remember(path)
        _remove(path)
        os.makedirs(os.path.dirname(path) or ".", 0o755, exist_ok=True)  # noqa: PTH103, PTH120 - as above
        if member.islnk():
            os.link(_inside(member.linkname), path, follow_symlinks=False)
            return
        if member.issym():
            os.symlink(member.linkname, path)  # noqa: PTH211 - as above
        else:
            self._content(archive, path, member)
        _set_owner(path, member)
        if member.isreg():
            os.chmod(path, member.mode & 0o7777)  # noqa: PTH101 - after chown, which clears setuid
        moment = min(max(0.0, float(member.mtime)), _LATEST)
        os.utime(path, (moment, moment), follow_symlinks=False)

    def _content(self, archive: tarfile.TarFile, path: str, member: tarfile.TarInfo) -> None:
        source = archive.extractfile(member)
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(target, "wb") as file:  # noqa: PTH123 - a descriptor
            if source is not None:
                shutil.copyfileobj(source, file, _CHUNK)

    def _remember(self, path: str) -> None:
        """Note what this layer wrote: its own opaque markers do not hide it, wherever they stand."""
        while self._layer and path not in self._written:
            self._written.add(path)
            path = path.rpartition("/")[0] or "."

    def _hide_older(self, directory: str) -> None:
        directory = directory or "."
        if not _is_directory(directory):
            return
        for name in os.listdir(directory):  # noqa: PTH208 - as above
            path = name if directory == "." else f"{directory}/{name}"
            if path in self._written:
                self._hide_older(path)
            else:
                _remove(path)


def _inside(name: str) -> str:
    """Normalise a path; ``.`` is the root itself. Raises Refused for one that climbs."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise Refused(f"{name!r} is not a path inside an archive")
    return "/".join(parts) or "."


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _remove(path: str) -> None:
    if path == ".":
        raise Refused("it removes its own root")
    try:
        if _is_directory(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)  # noqa: PTH108 - as above
    except (FileNotFoundError, NotADirectoryError):
        pass


def _set_owner(path: str, member: tarfile.TarInfo) -> None:
    if 0 <= member.uid <= _LARGEST_ID and 0 <= member.gid <= _LARGEST_ID:
        with contextlib.suppress(OSError):  # outside the range of the user namespace
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
            return
    raise Refused(f"{member.name!r} belongs to {member.uid}:{member.gid}, ids that cannot be had here")


def opened(archive: str) -> Readable:
    """Open an archive for reading, decompressed by what its first bytes say. Call before the root changes."""
    descriptor = os.open(archive, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    file = open(descriptor, "rb")  # noqa: PTH123, SIM115 - a descriptor, read until this program ends
    magic = os.pread(descriptor, 6, 0)  # leaves the position for whoever reads next
    if magic.startswith(GZIP):
        return gzip.GzipFile(fileobj=file)
    if magic.startswith(XZ):
        return lzma.LZMAFile(file)
    if magic.startswith(ZSTD):
        return _Zstd(file)
    return file


class _Zstd:
    """The output of the zstd program, whose failure is one of reading."""

    def __init__(self, file: IO[bytes]) -> None:
        command = ["zstd", "--decompress", "--stdout", "--quiet", "--memory=256MB"]
        self._process = subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE)

    def read(self, size: int) -> bytes:
        output = self._process.stdout
        data = output.read(size) if output else b""
        if not data and size and self._process.wait():
            raise Refused("zstd cannot decompress it")
        return data


def main(arguments: list[str]) -> int:
    """Run the program; the return value is its exit status."""
    directory, limit, archive, *options = arguments
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    unpacker = Unpacker(layer="--layer" in options)
    try:
        stream = Bounded(opened(archive), int(limit), lambda count: _say(f"progress {count}"))
        os.chroot(directory)
        os.chdir("/")
        os.umask(0)
        for name in _MOUNT_POINTS:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o1777 if name == "tmp" else 0o755)  # noqa: PTH102 - as above
        unpacker.unpack(stream)
        while stream.read(_CHUNK):  # what follows the archive's end is bounded and checked like the rest
            pass
    except OSError as error:  # gzip's complaint about a bad archive is one too
        return _failed(f"{error.strerror}: {error.filename!r}" if error.filename else str(error))
    except (MemoryError, RecursionError):
        return _failed("its headers take too much memory")
    except (
        Refused,
        tarfile.TarError,
        EOFError,
        lzma.LZMAError,
        zlib.error,
        ValueError,
        OverflowError,
    ) as error:
        return _failed(str(error))
    _say(json.dumps({"bytes": stream.count, "entries": unpacker.entries, "skipped": unpacker.skipped}))
    return 0


def _failed(reason: str) -> int:
    _say(f"error: {reason}".encode(errors="backslashreplace").decode())
    return 1


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
