"""Tar streams in and out of a job's root."""

from __future__ import annotations

import os
import tarfile

FAILURE = "cloche-failure: "
"""What an agent's builtin writes before its error message when it fails."""


class _AsIs(tarfile.TarFile):
    """Unpacked files belong to whoever unpacks, not to the user ids of the machine that packed."""

    def chown(self, *_args: object) -> None:
        """Keep the owner."""


def unpack(folder: str, descriptor: int) -> None:
    """Unpack an uncompressed tar stream below ``folder``, which is made if it is missing."""
    os.makedirs(folder, exist_ok=True)
    with os.fdopen(descriptor, "rb", closefd=False) as stream, _AsIs.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            _clear(os.path.join(folder, member.name), member)
            tar.extract(member, folder, numeric_owner=True)


def _clear(path: str, member: tarfile.TarInfo) -> None:
    """A file in the way of another goes, as tar(1) has it; folders merge."""
    if not member.isdir() and (os.path.islink(path) or os.path.isfile(path)):
        os.unlink(path)


def pack(path: str, descriptor: int) -> None:
    """Write the file or folder at ``path`` as an uncompressed tar stream, named by its last component."""
    with os.fdopen(descriptor, "wb", closefd=False) as stream, tarfile.open(fileobj=stream, mode="w|") as tar:
        tar.add(path, arcname=os.path.basename(path.rstrip("/")) or ".")
