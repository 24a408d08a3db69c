"""The daemon's runner: a Python with everything imported that forks a process for each ``cloche run`` of a client.

Started by the daemon with a listening socket. Each forked process takes over the client's folder, environment and
standard streams and is from there on the ``cloche`` command, except that its VMs come from the daemon. So a run
that crashes, hangs or eats memory does it alone, and two runs use two processors.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING

from cloche.cli.run import import_asyncio
from cloche.daemon.client import version
from cloche.daemon.wire import HEADER, MAX_REQUEST, STREAMS, Request

if TYPE_CHECKING:
    from typing import NoReturn

REQUEST_DEADLINE = 10.0
"""Seconds for a client to say what it wants."""
_CREDENTIALS = struct.Struct("3i")
_USED_BY_RUNS = (
    "cloche.cli.root", "cloche.cli.running", "cloche.daemon.sessions", "cloche.report.console", "cloche.report.plain",
    "cloche.report.jsonl", "cloche.report.quiet", "cloche.execution.checkout_step", "cloche.vm.inbox",
    "cloche.cli.console", "concurrent.futures.thread", "encodings.ascii", "getpass", "tarfile",
    "hashlib", "subprocess", "tempfile",
)  # fmt: skip


def main() -> NoReturn:
    """Serve until the daemon ends us: arguments are the descriptor of the listening socket and the control socket."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    control = sys.argv[2]
    import_asyncio()
    for name in _USED_BY_RUNS:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    while True:
        channel, _ = listener.accept()
        with channel:
            if peer_user(channel) == os.getuid() and os.fork() == 0:
                listener.close()
                _become(channel, control)


def peer_user(channel: socket.socket) -> int:
    """Tell who is at the other end of a Unix socket, by user id."""
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(credentials)[1]
    return user


def _become(channel: socket.socket, control: str) -> NoReturn:
    """In the fork: carry out one request and end."""
    code = 1
    try:
        request = _receive(channel)
        if request is None:
            channel.sendall(b"other\n")
            os._exit(0)
        channel.sendall(b"pid %d\n" % os.getpid())
        code = _carry_out(request, channel, control)
        with contextlib.suppress(OSError):  # the client may be gone
            channel.sendall(b"exit %d\n" % code)
    finally:
        os._exit(code)


def _receive(channel: socket.socket) -> Request | None:
    """Take over the client's request and streams; ``None`` when it is of another version or talks nonsense."""
    channel.settimeout(REQUEST_DEADLINE)
    data, descriptors, _, _ = socket.recv_fds(channel, HEADER, STREAMS)
    try:
        size = int.from_bytes(data, "little")
        if len(data) != HEADER or len(descriptors) != STREAMS or size > MAX_REQUEST:
            return None
        request = Request.decode(_read(channel, size))
        if request.version != version():
            return None
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
    except ValueError:
        return None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    channel.settimeout(None)
    return request


def _read(channel: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = channel.recv(size - len(parts))
        if not part:
            raise ValueError("the client ended before its request did")
        parts += part
    return bytes(parts)


def _carry_out(request: Request, channel: socket.socket, control: str) -> int:
    from cloche.cli import compose, run_here

    os.setsid()
    os.umask(request.umask)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(request.environ)
    time.tzset()
    _open_streams(request.encoding)
    sys.argv = ["cloche", *request.argv]
    compose.borrow_from(control)
    threading.Thread(target=_end_with, args=(channel,), daemon=True).start()
    try:
        os.chdir(request.folder)
        run_here()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except OSError as error:
        sys.stderr.write(f"error: {error.filename or 'cloche'}: {error.strerror or error}\n")
    except BaseException:  # noqa: BLE001 - what Python would do with it at the end of a process of its own
        import traceback

        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    return 1


def _open_streams(encoding: str) -> None:
    """Python's streams over the client's descriptors, as Python itself would have opened them."""
    sys.stdin = os.fdopen(0, encoding=encoding, errors="surrogateescape", closefd=False)
    buffering = 1 if os.isatty(1) else -1
    sys.stdout = os.fdopen(1, "w", buffering, encoding, "surrogateescape", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, encoding, "backslashreplace", closefd=False)


def _end_with(channel: socket.socket) -> None:
    """A client that was killed takes its run with it: as a user who interrupts twice."""
    with contextlib.suppress(OSError):
        while channel.recv(1):
            pass
    for number in (signal.SIGHUP, signal.SIGTERM):
        os.kill(os.getpid(), number)


if __name__ == "__main__":
    main()
