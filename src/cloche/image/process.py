"""Running the programs that build images: with a deadline, a log, and nobody left behind.

What needs root runs as root of the machine or, for other users, as root of a user namespace in which the
user's own id is 0 and the range of /etc/subuid follows. Either way it has mount and PID namespaces of its own,
so that ending one process ends all, and no mount outlives them.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cloche.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

_PACKAGE_OF = {
    "mkfs.erofs": "erofs-utils",
    "mmdebstrap": "mmdebstrap",
    "newuidmap": "uidmap",
    "setpriv": "util-linux",
    "tar": "tar",
    "unshare": "util-linux",
    "zstd": "zstd",
}

_DRAIN = 10.0
"""Seconds a killed process group gets to let go of its output."""

_CHUNK = 65536
_LONGEST_LINE = 64 * 1024


def require(*programs: str) -> None:
    """Check that programs are installed. Raises ImageError with the line that installs the missing ones."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        packages = " ".join(sorted({_PACKAGE_OF.get(program, program) for program in missing}))
        raise ImageError(f"not installed: {', '.join(missing)}", hint=f"sudo apt-get install {packages}")


def as_root(argv: Sequence[str]) -> list[str]:
    """Wrap a command to run as root, in namespaces of its own, and to die with its parent.

    Raises ImageError when this user cannot have a user namespace with a range of ids.
    """
    require("setpriv", "unshare")
    namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        require("newuidmap")
        _require_subordinate_ids()
        namespaces = ["--user", "--map-root-user", "--map-auto", *namespaces]
    return ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "--", *argv]


def _require_subordinate_ids() -> None:
    import getpass

    user = getpass.getuser()
    owners = {user, str(os.getuid())}
    for file in ("/etc/subuid", "/etc/subgid"):
        try:
            with open(file, encoding="utf-8") as lines:  # noqa: PTH123 - read line by line
                if any(line.partition(":")[0] in owners for line in lines):
                    continue
        except OSError:
            pass
        raise ImageError(
            f"{file} gives {user} no range of ids, so images cannot be made without root",
            hint=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}",
        )


def run(
    argv: Sequence[str],
    *,
    what: str,
    log: BinaryIO,
    deadline: float,
    on_line: Callable[[str], None] = lambda _: None,
) -> None:
    """Run a program to its end, its output going to ``log`` and line by line to ``on_line``.

    ``what`` names it in errors; ``deadline`` is in seconds. Whatever ends this call early (the deadline,
    Ctrl-C, an error in ``on_line``) kills the program's process group first. Raises ImageError when it cannot
    start, fails, or takes too long.
    """
    require(argv[0])
    log.write(f"$ {' '.join(argv)}\n".encode())
    last = deque[str](maxlen=20)
    until = time.monotonic() + deadline
    try:
        with _started(argv) as process:
            for line in _lines(process, until):
                log.write(line)
                last.append(line.decode(errors="replace").strip())
                on_line(last[-1])
            status = process.wait(max(0.1, until - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        raise ImageError(f"{what} took longer than {deadline:.0f} s and was ended") from None
    if status:
        raise ImageError(f"{what} failed with status {status}: {_reason(last)}")


@contextmanager
def _started(argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the whole group and wait until the last of it has closed its output."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        for _ in _lines(process, time.monotonic() + _DRAIN):
            pass


def _lines(process: subprocess.Popen[bytes], until: float) -> Iterator[bytes]:
    """Yield the output as it comes, split after newlines or after ``_LONGEST_LINE`` bytes."""
    pending = b""
    while chunk := _read(process, until):
        *lines, pending = (pending + chunk).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if len(pending) > _LONGEST_LINE:
            yield pending
            pending = b""
    if pending:
        yield pending


def _read(process: subprocess.Popen[bytes], until: float) -> bytes:
    output = process.stdout
    if output is None:  # never: it is always a pipe; this tells the type checker
        return b""
    remaining = until - time.monotonic()
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        if remaining <= 0 or not selector.select(remaining):
            raise TimeoutError
    return os.read(output.fileno(), _CHUNK)


def _reason(lines: Sequence[str]) -> str:
    """Pick the line that says most about a failure: the last one that calls itself an error."""
    said = [line for line in lines if line]
    errors = [line for line in said if line.lower().startswith(("e:", "error", "err:", "fatal"))]
    return (errors or said or ["it said nothing"])[-1]
