"""The thin client: hands a command line and its standard streams to the daemon's runner, and waits.

The command people type most must feel instant, so this imports next to nothing. The runner's process writes to
this terminal itself; what is left to do here is to pass signals on and to end with its exit code.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from cloche import __version__
from cloche.daemon.wire import HEADER, RUN_SOCKET, STREAMS, Request
from cloche.places import daemon_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

OFF = "CLOCHE_NO_DAEMON"
"""An environment variable: with a value, commands do without the daemon."""
LOST = 3
"""Exit code when the runner's process is gone without a word: as when there is no VM to be had."""
_GONE = -1
_ANSWER = 64
_CONNECT = 1.0  # seconds; a living runner takes 0.001


def ask(argv: list[str]) -> int | None:
    """Have the daemon carry out ``argv``; the exit code, or ``None`` where no daemon of this version is up."""
    if os.environ.get(OFF):
        return None
    give_back = _terminal(argv)
    channel = socket.socket(socket.AF_UNIX)
    with channel:
        try:
            channel.settimeout(_CONNECT)
            channel.connect(f"{daemon_folder(os.environ)}/{RUN_SOCKET}")
            _send(channel, argv)
            channel.settimeout(None)
        except OSError:
            return None
        code = _wait(channel)
        give_back()
        return _lost() if code == _GONE else code


def _terminal(argv: list[str]) -> Callable[[], None]:
    """Return what brings the terminal back to what it is now, should its run be killed while it has it."""
    if not any(arg.startswith("--on-failure") for arg in argv):
        return lambda: None
    import termios

    try:
        before = termios.tcgetattr(0)
    except termios.error:
        return lambda: None

    def give_back() -> None:
        try:
            if termios.tcgetattr(0) != before:
                termios.tcsetattr(0, termios.TCSANOW, before)
        except termios.error:
            pass  # it hung up

    return give_back


def version() -> str:
    """Tell what both ends must agree on: the code's version and where it is."""
    return f"{__version__} {sys.version_info[:2]} {__file__}"


def _send(channel: socket.socket, argv: list[str]) -> None:
    umask = os.umask(0)
    os.umask(umask)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    data = Request(version(), os.getcwd(), umask, encoding, argv, dict(os.environ)).encode()  # noqa: PTH109 - pathlib would be an import
    socket.send_fds(channel, [len(data).to_bytes(HEADER, "little")], range(STREAMS))
    channel.sendall(data)


def _wait(channel: socket.socket) -> int | None:
    """Read the runner's answers; signals that end a command go to its process meanwhile."""
    said = b""
    worker = 0

    def pass_on(number: int, _frame: object) -> None:
        try:  # noqa: SIM105 - contextlib would be an import
            os.kill(worker, number)
        except ProcessLookupError:
            pass  # it is ending: its exit code is on its way

    while True:
        part = channel.recv(_ANSWER)
        said += part
        while b"\n" in said:
            line, _, said = said.partition(b"\n")
            word, _, number = line.partition(b" ")
            if word == b"exit":
                return int(number)
            if word != b"pid":
                return None
            worker = int(number)
            for told in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH):
                signal.signal(told, pass_on)
        if not part:
            return _GONE if worker else None


def _lost() -> int:
    sys.stderr.write("error: the process that carried out this run ended without a word\n")
    sys.stderr.write("  hint: cloche status tells whether the daemon is up; its log tells more\n")
    return LOST
