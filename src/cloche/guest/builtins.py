"""What the agent itself can do in a job's root, whatever the job image holds: tar in, tar out, hash files.

Each runs as a child process of the agent that changes into the job's root and becomes the job's user; to the
host it is a stream like any other, with the archive or the answer as its data.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

from cloche.guest import archive, hashing, spawn
from cloche.guest.streams import make_pipes

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.guest.jobs import Job
    from cloche.guest.protocol import Header
    from cloche.guest.streams import Stream


def run(job: Job, stream: Stream, header: Header) -> None:
    """Start the builtin that ``header`` names. KeyError for an unknown one or an unknown user."""
    function = _BUILTINS[str(header["builtin"])]
    output, *rest = make_pipes(stream, header)
    pid = os.fork()
    if pid == 0:
        _become(job, function, header, output, rest)
    for descriptor in (output, *rest):
        os.close(descriptor)
    stream.pid = pid


def _become(
    job: Job, function: Callable[[Header, int], None], header: Header, output: int, rest: list[int]
) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.dup2(output, 1)
        if rest:
            os.dup2(rest[0], 0)
        os.chroot(f"/proc/{job.pid}/root")
        os.chdir("/")
        user = header.get("user")
        spawn.become_user(spawn.UserTable(single=job.single_user).find(None if user is None else str(user)))
        function(header, 0)
        code = 0
    except BaseException as error:  # noqa: BLE001 - a fork must never return into the agent's loop
        os.write(1, f"{archive.FAILURE}{error}".encode())
    finally:
        sys.stdout.flush()
        os._exit(code)


def _untar(header: Header, _: int) -> None:
    archive.unpack(str(header["path"]), 0)


def _tar(header: Header, _: int) -> None:
    archive.pack(str(header["path"]), 1)


def _hash(header: Header, _: int) -> None:
    patterns = [str(p) for p in header["patterns"]]  # type: ignore[attr-defined] # the host's own list
    os.write(1, hashing.hash_files(str(header["path"]), patterns).encode())


_BUILTINS: dict[str, Callable[[Header, int], None]] = {"untar": _untar, "tar": _tar, "hash": _hash}
