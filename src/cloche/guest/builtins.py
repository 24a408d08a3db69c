"""What a job's init can do itself, whatever the job image holds: tar in, tar out, hash files.

Each runs in a fork of the init that has become the job's user; to the host it is a stream like any other, with
the archive or the answer as its data.
"""

from __future__ import annotations

import os
import tarfile

from cloche.guest import archive, hashing, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.guest.protocol import Header

# Names for user numbers would come from the C library, which would load the job image's modules into this process.
tarfile.pwd = tarfile.grp = None  # type: ignore[attr-defined] # tarfile itself does this where they are missing


def prepare(header: Header, user: spawn.User) -> None:
    """What a builtin needs done before it is its user. Raises spawn.StartError."""
    if header["builtin"] == "untar":
        try:
            spawn.make_folders(str(header["path"]), user)
        except OSError as error:
            raise spawn.StartError(spawn.NOT_EXECUTABLE, _reason(error)) from error


def run(header: Header) -> int:
    """Do what an ``exec`` message names as its builtin: the exit code, 1 after a failure that the data tell."""
    try:
        _BUILTINS[str(header["builtin"])](header)
    except Exception as error:  # noqa: BLE001 - whatever it is, the host is told
        os.write(1, f"{archive.FAILURE}{_reason(error)}".encode(errors="replace")[:_MAX_FAILURE])
        return 1
    return 0


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _untar(header: Header) -> None:
    archive.unpack(str(header["path"]), 0)


def _tar(header: Header) -> None:
    archive.pack(str(header["path"]), 1)


def _hash(header: Header) -> None:
    patterns = [str(p) for p in header["patterns"]]  # type: ignore[attr-defined] # the host's own list
    os.write(1, hashing.hash_files(str(header["path"]), patterns).encode())


_MAX_FAILURE = 4096
_BUILTINS: dict[str, Callable[[Header], None]] = {"untar": _untar, "tar": _tar, "hash": _hash}
