"""Disk space: asked for before the work starts, and named when it ran out all the same."""

from __future__ import annotations

import errno
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cloche.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from cloche.image.store import ImageStore

MIB = 1024 * 1024
_FULL = 32 * MIB
"""Free space, in bytes, below which a step that failed is taken to have failed for want of it."""


def check_space(directory: Path, needed: int) -> None:
    """Raise ImageError unless ``needed`` bytes are free where ``directory`` is or will be."""
    free = free_space(directory)
    if free < needed:
        raise _too_little("there is not enough disk space", directory, needed, free)


def free_space(directory: Path) -> int:
    """Bytes free for this user on the file system that holds ``directory`` or its nearest existing parent."""
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def allocated(tree: Path) -> int:
    """Bytes of the file's content, or of all regular files below a directory."""
    if not tree.is_dir():
        return tree.stat().st_size
    return sum(file.stat().st_size for file in tree.rglob("*") if file.is_file() and not file.is_symlink())


@contextmanager
def explained(store: ImageStore, topic: str, needed: int) -> Iterator[BinaryIO]:
    """Open a log for making ``topic``; failures of the block say where it is, and whether the disk is full."""
    with store.log(topic) as (path, log):
        try:
            yield log
        except (ImageError, OSError) as error:
            free = free_space(store.root)
            if free < _FULL or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
                raise _too_little("the disk is full", store.root, needed, free) from error
            if isinstance(error, OSError):
                raise ImageError(f"image {topic!r} failed: {error}", hint=f"the log is {path}") from error
            hint = f"{error.hint}; " if error.hint else ""
            raise ImageError(f"image {topic!r}: {error.message}", hint=f"{hint}the log is {path}") from error


def _too_little(what: str, directory: Path, needed: int, free: int) -> ImageError:
    return ImageError(
        f"{what}: about {needed // MIB} MiB are needed in {directory}, and {free // MIB} MiB are free",
        hint="make room there (cloche gc removes what Cloche no longer needs), or set XDG_DATA_HOME",
    )
