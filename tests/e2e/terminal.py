"""The command line on a terminal of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Self

from tests.e2e.place import CLOCHE, DEADLINE

if TYPE_CHECKING:
    from types import TracebackType

    from tests.e2e.place import Place


class Terminal:
    """``cloche run``, or another ``command``, and the terminal it has; ``env`` adds to the place's.

    A context manager: leaving it hangs up, and kills what does not mind.
    """

    def __init__(
        self, place: Place, *arguments: str, command: str = "run", env: dict[str, str] | None = None
    ) -> None:
        self._ours, theirs = pty.openpty()
        self._said = b""
        run = ("--vm", place.provider, "--env", f"PLACE={place.folder}") if command == "run" else ()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", CLOCHE, command, *run, *arguments],
            cwd=place.repository,
            env={**place.env, "TERM": "xterm", **(env or {})},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hang_up()
        if kind is not None:
            self.process.kill()
        self.process.wait(DEADLINE)

    def _read(self) -> bool:
        """Read what is there; false when nobody is at the other end any more."""
        if not select.select([self._ours], [], [], DEADLINE)[0]:
            raise AssertionError(f"nothing within {DEADLINE:g} s after:\n{self._said.decode()}")
        with contextlib.suppress(OSError):  # how a terminal says it
            part = os.read(self._ours, 65536)
            self._said += part
            return bool(part)
        return False

    def wait_for(self, text: str) -> None:
        """Read until the terminal has shown ``text``."""
        deadline = time.monotonic() + DEADLINE
        while text.encode() not in self._said:
            assert time.monotonic() < deadline, self._said.decode()
            assert self._read(), self._said.decode()

    def type(self, text: str) -> None:
        """Type ``text``."""
        os.write(self._ours, text.encode())

    def forget(self) -> None:
        """Look from now on only at what is shown later."""
        self._said = b""

    def resize(self, rows: int, columns: int) -> None:
        """Have another size, of which the foreground's programs are told."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def is_raw(self) -> bool:
        """Whether what is typed goes to the program byte by byte, and Ctrl-C with it."""
        return not termios.tcgetattr(self._ours)[3] & (termios.ICANON | termios.ISIG | termios.ECHO)

    def end(self) -> tuple[int, str]:
        """Read to the end: the exit code, and everything shown."""
        while self._read():
            pass
        return self.process.wait(DEADLINE), self._said.decode()

    def hang_up(self) -> None:
        """Take the terminal away."""
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1
