"""The workspace of a job that goes on: what the host has changed since ``actions/checkout`` sent it.

Only files that were sent, and new ones that would be, are looked at; what is no longer as it was sent is a step's.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import posixpath
from typing import TYPE_CHECKING

from cloche.errors import GuestError, GuestLost, GuestTimeout
from cloche.execution.checkout import CheckoutError, CheckoutSpec, Mark, marks, stream_of
from cloche.records import record
from cloche.vm.guest import ExecSpec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable
    from pathlib import Path
    from tarfile import TarInfo

    from cloche.execution.resume import Side
    from cloche.vm.guest import ExitStatus, JobRoot

_HEAD = 64 * 1024
"""Bytes of a stream that its first header is surely in."""

_LONGEST = 1800.0
"""Seconds for all of it; each part has a deadline of its own."""

_DEADLINE = 120.0
_MOST_SAID = 1000
_REMOVE = ("rm", "-rf", "--")
_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_AT_ONCE = 500
"""Names on one command line."""


@record
class CaughtUp:
    """How many files were changed in the guest, and the names of those that a step had changed too."""

    changed: int
    conflicts: tuple[str, ...]


async def catch_up(
    root: JobRoot, host: Path, include: tuple[str, ...], sent: dict[str, dict[str, str]], side: Side | None
) -> CaughtUp:
    """Make the folders that were checked out what ``host``, the repository, is now, as far as no step has changed them.

    ``sent`` (see JobState) follows. ``side`` settles it for files that a step has changed. GuestError.
    """
    spec = CheckoutSpec(host, "", include=include)
    try:
        async with asyncio.timeout(_LONGEST):
            all_of_them = [await _catch_up(root, folder, spec, files, side) for folder, files in sent.items()]
    except TimeoutError as late:
        raise GuestTimeout(f"the workspace was not caught up within {_LONGEST:g} s") from late
    except CheckoutError as wrong:
        raise GuestError(f"the changes of the repository cannot be sent: {wrong.message}") from wrong
    conflicts = tuple(name for one in all_of_them for name in one.conflicts)
    return CaughtUp(sum(one.changed for one in all_of_them), conflicts)


async def _catch_up(
    root: JobRoot, folder: str, spec: CheckoutSpec, sent: dict[str, str], side: Side | None
) -> CaughtUp:
    now = await marks(spec)
    changed = [name for name in {**sent, **now} if sent.get(name) != now.get(name)]
    ours, conflicts, in_the_way = [], [], []
    for name in changed:
        there = await _mark_in_guest(root, posixpath.join(folder, name), (sent.get(name), now.get(name)))
        if there == now.get(name):
            continue
        if there == sent.get(name) or side == "ours":
            ours.append(name)
            if there == "" or (there is not None and name not in now):
                in_the_way.append(name)
        elif side is None:
            conflicts.append(name)
    await _remove(root, [posixpath.join(folder, name) for name in in_the_way])
    if put := [name for name in ours if name in now]:
        async with contextlib.aclosing(stream_of(spec.root, put)) as pieces:
            await root.put(folder, pieces)
    left = set(conflicts)
    for name in changed:
        if name not in left:
            sent.pop(name, None)
            sent |= {name: now[name]} if name in now else {}
    return CaughtUp(len(ours), tuple(conflicts))


async def _remove(root: JobRoot, paths: list[str]) -> None:
    for start in range(0, len(paths), _AT_ONCE):
        status, said = await _run(root, (*_REMOVE, *paths[start : start + _AT_ONCE]))
        if status.code:
            why = status.error or said.decode("utf-8", "replace").strip()
            raise GuestError(f"files in the workspace could not be replaced: {why}")


async def _run(root: JobRoot, argv: tuple[str, ...]) -> tuple[ExitStatus, bytes]:
    """Run a program to its end; GuestTimeout when that does not come."""
    try:
        async with asyncio.timeout(_DEADLINE):
            process = await root.exec(ExecSpec(argv, _ENV))
            said = b""
            async for chunk in process.output():
                said = (said + chunk)[-_MOST_SAID:]
            return await process.wait(), said
    except TimeoutError as late:
        raise GuestTimeout(f"`{argv[0]}` in the guest was not done after {_DEADLINE:g} s") from late


async def _mark_in_guest(root: JobRoot, path: str, known: Iterable[str | None]) -> str | None:
    """Return the mark of a file in the guest; ``None`` if there is none, empty for what is not one of ``known``."""
    most = max((int(mark.split()[1]) for mark in known if mark), default=0)
    try:
        async with contextlib.aclosing(_pieces(root, path)) as pieces:
            return await _mark(pieces, most)
    except (GuestLost, GuestTimeout):
        raise
    except GuestError:
        return None


async def _pieces(root: JobRoot, path: str) -> AsyncGenerator[bytes, None]:
    async for piece in root.get(path):
        yield piece


async def _mark(pieces: AsyncIterator[bytes], most: int) -> str:
    """Read the one entry of a tar stream, a piece at a time; empty for no file, or one of more than ``most`` bytes."""
    head = b""
    async for piece in pieces:
        head += piece
        if len(head) >= _HEAD:
            break
    entry = _first_entry(head)
    if entry is None or entry.size > most:
        return ""
    mark = Mark()
    if entry.issym():
        mark.take_link(entry.linkname)
    elif entry.isfile():
        mark.begin_file(entry.mode)
        content = head[entry.offset_data : entry.offset_data + entry.size]
        mark.take(content)
        left, spare = entry.size - len(content), _HEAD
        async for piece in pieces:
            mark.take(piece[:left])
            spare -= len(piece[left:])
            left -= len(piece[:left])
            if spare < 0:  # no tar ends so
                return ""
    return str(mark) if mark else ""


def _first_entry(head: bytes) -> TarInfo | None:
    """Read what a stream begins with; ``None`` for nonsense."""
    import tarfile

    try:
        with tarfile.open(fileobj=io.BytesIO(head), mode="r:") as tar:
            return tar.next()
    except (tarfile.TarError, ValueError, OverflowError, IndexError, EOFError):
        return None
