"""The inbox: a disk of the guest's that is a file of the host's, for archives too large for the channel.

A virtio-serial port moves a page at a time, which under emulation is about a megabyte a second. The guest sees
the disk read-only, and the host writes it only while the guest has not been told to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from cloche.errors import GuestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator
    from pathlib import Path


class Inbox:
    """One VM's inbox. Holds one content at a time; the file takes no space between two."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = path.stat().st_size
        self._free = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def holding(self, archive: AsyncIterable[bytes]) -> AsyncIterator[int]:
        """Write ``archive`` and keep it for the block; yields its size in bytes.

        GuestError when it does not fit, on the guest's disk or on the host's.
        """
        async with self._free:
            try:
                yield await self._write(archive)
            finally:
                os.truncate(self.path, 0)
                os.truncate(self.path, self._size)

    async def _write(self, archive: AsyncIterable[bytes]) -> int:
        written = 0
        with self.path.open("r+b", buffering=0) as file:
            async for part in archive:
                written += len(part)
                if written > self._size:
                    raise GuestError(
                        f"more than {self._size >> 20} MiB of files do not fit on the VM's disk (--disk)"
                    )
                try:
                    await asyncio.to_thread(_write_all, file.fileno(), part)
                except OSError as error:
                    raise GuestError(f"cannot write {self.path}: {error.strerror}") from error
        return written


def _write_all(descriptor: int, part: bytes) -> None:
    view = memoryview(part)
    while view:
        view = view[os.write(descriptor, view) :]
