"""The pages of a VM's memory that left its template, found by the kernel's page map and copied through /proc.

A VM's memory is a private mapping of its template's file, so what the guest wrote is exactly the pages that are
the process's own. Needs the rights to trace the process: it is our child, or of our user.
https://docs.kernel.org/admin-guide/mm/pagemap.html
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import struct
from typing import TYPE_CHECKING, BinaryIO

from cloche.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    Run = tuple[int, int]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_ENTRY = 8
_BLOCK = 1 << 20  # bytes of page map read at once: 512 MiB of memory
_PRESENT, _SWAPPED, _FILE = 0x80, 0x40, 0x20  # in an entry's highest byte
_OWN = bytes(1 if byte & (_PRESENT | _SWAPPED) and not byte & _FILE else 0 for byte in range(256))
_RUNS = re.compile(rb"\x01+")
_COPY = 16 << 20  # bytes
_MOST = 1024  # runs in one call: IOV_MAX of Linux
_MAGIC = b"cloche-pages-1\0\0"
_COUNT = struct.Struct("<Q")
_RUN = struct.Struct("<QQ")


class Memory:
    """The memory of a running process that is mapped from one file. A context manager: leaving it closes it."""

    def __init__(self, pid: int, file: Path) -> None:
        """ProviderError when the process is gone, may not be looked into, or has no such mapping."""
        self._pid = pid
        try:
            self._start, self.size = _mapping(pid, file)
            self._memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise ProviderError(
                f"the memory of the VM's process {pid} cannot be reached: {error.strerror}",
                hint="snapshots need the rights to trace one's own processes (ptrace(2))",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._memory)

    def own_pages(self) -> list[Run]:
        """The runs of pages that left the file, as offsets and lengths in bytes, in order."""
        runs: list[Run] = []
        with open(f"/proc/{self._pid}/pagemap", "rb", buffering=0) as pagemap:  # noqa: PTH123 - a file of proc's
            for offset in range(0, self.size, _BLOCK // _ENTRY * _PAGE):
                pagemap.seek((self._start + offset) // _PAGE * _ENTRY)
                entries = pagemap.read(min(_BLOCK, (self.size - offset) // _PAGE * _ENTRY))
                flags = entries[_ENTRY - 1 :: _ENTRY].translate(_OWN)
                runs += [
                    (offset + found.start() * _PAGE, len(found[0]) * _PAGE) for found in _RUNS.finditer(flags)
                ]
        return runs

    def read(self, runs: list[Run], buffer: memoryview) -> Iterator[memoryview]:
        """The content of runs, one after the other, in pieces that are good until the next. ProviderError.

        A ``buffer`` as large as all of them holds them all in the end, one after the other.
        """
        start = 0
        for batch, size in _batches(runs, min(len(buffer), _COPY)):
            if start + size > len(buffer):
                start = 0
            yield self._read_batch(batch, buffer[start : start + size])
            start += size

    def _read_batch(self, batch: list[Run], target: memoryview) -> memoryview:
        """Read many runs by one system call: process_vm_readv(2), for which Python has no function."""
        there = (_IoVec * len(batch))(*(_IoVec(self._start + offset, length) for offset, length in batch))
        here = _IoVec(ctypes.addressof(ctypes.c_char.from_buffer(target)), len(target))
        got = _libc().process_vm_readv(self._pid, ctypes.byref(here), 1, there, len(batch), 0)
        if got != len(target):
            why = os.strerror(ctypes.get_errno()) if got < 0 else "it ended meanwhile"
            raise ProviderError(f"the memory of the VM's process {self._pid} could not be read: {why}")
        return target

    def write(self, offset: int, data: bytes) -> None:
        """Put content in place."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._memory, view, self._start + offset)
            offset += written
            view = view[written:]


class _IoVec(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    vectors, count = ctypes.POINTER(_IoVec), ctypes.c_ulong
    libc.process_vm_readv.argtypes = (ctypes.c_int, vectors, count, vectors, count, count)
    libc.process_vm_readv.restype = ctypes.c_ssize_t
    return libc


def _batches(runs: list[Run], most: int) -> Iterator[tuple[list[Run], int]]:
    """What one call reads each, and how many bytes that is: at most ``most``."""
    batch: list[Run] = []
    size = 0
    for offset, length in _in_pieces(runs, most):
        if size + length > most or len(batch) == _MOST:
            yield batch, size
            batch, size = [], 0
        batch.append((offset, length))
        size += length
    if batch:
        yield batch, size


def _in_pieces(runs: list[Run], most: int) -> Iterator[Run]:
    """The same runs, none of them longer than ``most``."""
    for offset, length in runs:
        for done in range(0, length, most):
            yield offset + done, min(most, length - done)


def _mapping(pid: int, file: Path) -> Run:
    """Where a file is mapped: address and length."""
    wanted = os.stat(file)  # noqa: PTH116 - compared by device and inode
    device = f"{os.major(wanted.st_dev):02x}:{os.minor(wanted.st_dev):02x}"
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:  # noqa: PTH123 - a file of proc's
        for line in maps:
            addresses, _, _, where, inode, *_ = line.split(maxsplit=5)
            if int(inode) == wanted.st_ino and where == device:
                start, _, end = addresses.partition("-")
                return int(start, 16), int(end, 16) - int(start, 16)
    raise ProviderError(f"process {pid} does not map {file}: it is no VM of that template")


class Held:
    """Pages of a VM at a moment, copied: the VM may go on while they are written."""

    def __init__(self, runs: list[Run], content: memoryview) -> None:
        self._runs = runs
        self._content = content

    def write(self, target: BinaryIO) -> int:
        """Write what ``load`` reads; the number of bytes of pages."""
        target.write(_head(self._runs))
        target.write(self._content)
        return len(self._content)


def hold(memory: Memory, most: int) -> Held | None:
    """Copy the pages of a stopped VM that left its template; ``None`` when they are more than ``most`` bytes."""
    runs = memory.own_pages()
    total = _total(runs)
    if total > most:
        return None
    content = memoryview(bytearray(total))
    for _ in memory.read(runs, content):
        pass
    return Held(runs, content)


def save(memory: Memory, target: BinaryIO) -> int:
    """Write the pages of a stopped VM that left its template; the number of bytes of pages."""
    runs = memory.own_pages()
    target.write(_head(runs))
    target.writelines(memory.read(runs, memoryview(bytearray(min(_COPY, _total(runs))))))
    return _total(runs)


def _head(runs: list[Run]) -> bytes:
    return _MAGIC + _COUNT.pack(len(runs)) + b"".join(_RUN.pack(*run) for run in runs)


def _total(runs: list[Run]) -> int:
    return sum(length for _, length in runs)


def load(memory: Memory, source: BinaryIO) -> int:
    """Put the pages of ``save`` into a VM that has not run yet; the number of bytes.

    ProviderError if they do not fit, or were not written whole.
    """
    if source.read(len(_MAGIC)) != _MAGIC:
        raise ProviderError("the snapshot's pages are not of this version of Cloche")
    (count,) = _COUNT.unpack(_exactly(source, _COUNT.size))
    runs = [_RUN.unpack(_exactly(source, _RUN.size)) for _ in range(count)]
    for offset, length in runs:
        if offset % _PAGE or length % _PAGE or offset + length > memory.size:
            raise ProviderError("the snapshot's pages do not fit this VM")
        for done in range(0, length, _COPY):
            memory.write(offset + done, _exactly(source, min(_COPY, length - done)))
    return _total(runs)


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise ProviderError("the snapshot's pages end early: it was not written whole")
    return data
