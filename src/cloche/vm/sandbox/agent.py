"""The process that becomes a sandbox's agent, once it is told of which sandbox.

Its Python takes about as long to start as all of Cloche. So a command that will want a sandbox starts one before
it imports the rest, and both start at once. Until it is told, the process holds nothing but its own memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from cloche.errors import ProviderError
from cloche.vm.starting import start_watched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SOURCE = os.path.abspath(f"{__file__}/../../../..")  # noqa: PTH100 - pathlib is still to be imported here
_MAIN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from cloche.guest.sandbox import main; main()"


class AgentProcess:
    """A started process and our end of its channel; both are the caller's to end."""

    def __init__(self) -> None:
        """ProviderError or OSError where it cannot be started."""
        self.channel, theirs = socket.socketpair()
        argv = [sys.executable, "-I", "-S", "-c", _MAIN, _SOURCE, str(theirs.fileno())]
        with theirs:
            try:
                self.process = start_watched(argv, [theirs.fileno()], subprocess.PIPE)
            except BaseException:
                self.channel.close()
                raise

    def become(self, plan: Mapping[str, object]) -> None:
        """Tell it of its sandbox: see guest.sandbox.Plan. That it died meanwhile is told where it is awaited."""
        assert self.process.stdin is not None, "started with a pipe"  # noqa: S101 - see above
        with contextlib.suppress(BrokenPipeError), self.process.stdin as pipe:
            pipe.write(json.dumps(plan).encode())

    def end(self) -> None:
        """End it now."""
        self.channel.close()
        with self.process as process:  # closes its pipes and waits
            process.kill()


_early: list[AgentProcess] = []


@contextlib.contextmanager
def started_early() -> Iterator[None]:
    """Have a process waiting for whoever takes the first; at the end of the block nobody has."""
    with contextlib.suppress(ProviderError, OSError):  # told to whom it matters, when a sandbox is asked for
        _early.append(AgentProcess())
    try:
        yield
    finally:
        while _early:
            _early.pop().end()


def take() -> AgentProcess:
    """Return the process that was started early, else one started now. ProviderError, OSError."""
    return _early.pop() if _early else AgentProcess()
