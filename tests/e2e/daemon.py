"""A daemon of a place's own."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.e2e.place import DEADLINE, command_line, processes, settled

if TYPE_CHECKING:
    from types import TracebackType

    from tests.e2e.place import Place

STATE_OF_ITS_OWN = ("daemon.log", "daemon/lock")


class Daemon:
    """``cloche up`` to ``cloche down``. A context manager; one that was killed is left alone at the end."""

    def __init__(self, place: Place, *arguments: str) -> None:
        self.place = place
        self._arguments = arguments

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = self.place.run("down", "--now")
        assert kind is not None or ended.code == 0, ended
        for name in STATE_OF_ITS_OWN:
            for path in self.place.folder.rglob(name):
                path.unlink()

    def up(self) -> None:
        """Start it, and wait until it is ready."""
        ended = self.place.run("up", "--vm", self.place.provider, *self._arguments)
        assert ended.code == 0, ended

    @property
    def status(self) -> dict[str, Any]:
        """What ``cloche status`` tells."""
        told: dict[str, Any] = json.loads(self.place.run("status", "--output", "json").stdout)
        return told

    @property
    def pid(self) -> int:
        """The daemon's process."""
        return int(self.status["pid"])

    @property
    def runner(self) -> int:
        """The process that forks those of the runs."""
        found: list[int] = []

        def missing() -> list[str]:
            found[:] = [pid for pid in self._runners() if parent(pid) == self.pid]
            return [] if found else ["no runner"]

        assert not settled(missing, DEADLINE)
        (pid,) = found
        return pid

    @property
    def workers(self) -> list[int]:
        """The processes of runs."""
        runner = self.runner
        return [pid for pid in self._runners() if parent(pid) == runner]

    def _runners(self) -> list[int]:
        return processes(str(self.place.folder), "cloche.cli.runner")

    def kill(self) -> None:
        """Kill the daemon itself, and nothing else."""
        os.kill(self.pid, signal.SIGKILL)

    def assert_idle(self) -> None:
        """Nobody has a VM, or soon has none any more."""
        left = settled(lambda: [str(one) for one in self.status["sessions"]], DEADLINE / 10)
        assert not left, left


def parent(pid: int) -> int:
    """A process's parent; 0 when it has ended."""
    try:
        with Path(f"/proc/{pid}/stat").open("rb") as file:
            return int(file.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def name(pid: int) -> str:
    """A process's command line as one text."""
    return " ".join(command_line(pid))
