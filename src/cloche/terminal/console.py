"""The user's terminal: its size, and raw mode, from which it is always brought back.

termios(3), tty_ioctl(4). In raw mode Ctrl-C and Ctrl-Z are bytes like others: they mean what the terminal in the
guest makes of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from typing import TYPE_CHECKING

from cloche.vm.guest import TtySize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_LARGEST = 4096
_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,63}")


class Console:
    """Where somebody types (``stdin``) and reads (``stdout``): a terminal if both are, else two streams."""

    def __init__(self, stdin: int = 0, stdout: int = 1) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.is_terminal = os.isatty(stdin) and os.isatty(stdout)

    @property
    def size(self) -> TtySize | None:
        """The terminal's size now; ``None`` when it is none."""
        if not self.is_terminal:
            return None
        try:
            columns, rows = os.get_terminal_size(self.stdout)
        except OSError:  # it hung up
            columns, rows = 0, 0
        return TtySize(rows=min(rows, _LARGEST) or 24, columns=min(columns, _LARGEST) or 80)

    @contextlib.contextmanager
    def raw(self) -> Iterator[None]:
        """Have every byte that is typed arrive as it is, until the block is left, however that happens."""
        if not self.is_terminal:
            yield
            return
        import termios
        import tty

        before = termios.tcgetattr(self.stdin)
        tty.setraw(self.stdin, termios.TCSADRAIN)
        try:
            yield
        finally:
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})  # in the background, too
            try:
                with contextlib.suppress(termios.error):  # it hung up
                    termios.tcsetattr(self.stdin, termios.TCSANOW, before)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    @contextlib.contextmanager
    def resized(self, tell: Callable[[TtySize], None]) -> Iterator[None]:
        """Have ``tell`` called with each new size, in the running event loop, until the block is left."""
        if not self.is_terminal:
            yield
            return

        def hear() -> None:
            if (size := self.size) is not None:
                tell(size)

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, hear)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)


def terminal_name(environ: Mapping[str, str] = os.environ) -> str:
    """Return what kind of terminal it is, as TERM tells; ``dumb`` for what cannot be a name."""
    name = environ.get("TERM", "")
    return name if _TERM.fullmatch(name) else "dumb"
