"""Tar streams in and out of a job's root."""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile

FAILURE = "cloche-failure: "
"""What an agent's builtin writes before its error message when it fails."""


class _AsIs(tarfile.TarFile):
    """Unpacked files belong to whoever unpacks, not to the user ids of the machine that packed."""

    @staticmethod
    def extraction_filter(member: tarfile.TarInfo, _folder: str) -> tarfile.TarInfo:
        """Take any member: all that it could harm is the job's own root."""
        return member

    def chown(self, *_args: object) -> None:
        """Keep the owner."""


def unpack(folder: str, descriptor: int) -> None:
    """Unpack an uncompressed tar stream below ``folder``, which is made if it is missing.

    Raises tarfile.TarError for a broken stream and OSError where a member cannot be written.
    """
    os.makedirs(folder, exist_ok=True)
    folders = []
    with os.fdopen(descriptor, "rb", closefd=False) as stream, _AsIs.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            member.name = member.name.lstrip("/")
            _unpack(tar, member, folder)
            if member.isdir():
                folders.append(member)
        for member in reversed(folders):
            path = os.path.join(folder, member.name)
            with contextlib.suppress(tarfile.ExtractError):  # a folder that was there and is another user's
                tar.chmod(member, path)
                tar.utime(member, path)


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: str) -> None:
    _clear(os.path.join(folder, member.name), member)
    try:
        # A folder's own mode may keep its members out, and they change its time: both come at the end.
        tar.extract(member, folder, set_attrs=not member.isdir(), numeric_owner=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, member.name) from error


def _clear(path: str, member: tarfile.TarInfo) -> None:
    """What is in a member's way goes, as tar(1) has it; folders merge, also with a link to one."""
    try:
        there = os.lstat(path).st_mode
    except OSError:
        return
    if not stat.S_ISDIR(there) and not (member.isdir() and os.path.isdir(path)):
        os.unlink(path)


def pack(path: str, descriptor: int) -> None:
    """Write the file or folder at ``path`` as an uncompressed tar stream, named by its last component.

    Raises OSError for what cannot be read.
    """
    with os.fdopen(descriptor, "wb", closefd=False) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        tar.add(path, arcname=os.path.basename(path.rstrip("/")) or ".")
