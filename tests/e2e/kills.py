"""Killing any part of the machinery at any moment, while runs go on: what must hold afterwards is the same for all."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import TYPE_CHECKING

from tests.e2e.daemon import Daemon, parent
from tests.e2e.endings import vm_processes
from tests.e2e.place import settled

if TYPE_CHECKING:
    from random import Random

    from tests.e2e.place import Ended, Place, Running

CODES = {0, 1, 3, 130, -signal.SIGKILL}
"""How a run may end that lost its VM, its process or its daemon; never by a traceback."""
ORPHANS = 5.0
AT_TARGET = 60.0
STEPS = """
- run: echo boot $(cat /proc/sys/kernel/random/boot_id); hostname > /tmp/mine
- run: sleep 0.2; test "$(cat /tmp/mine)" = "$(hostname)"
- run: sleep 0.2
"""


class Kills:
    """Rounds of runs in which something is killed. ``seen`` is the boot ids of all VMs that runs had."""

    def __init__(self, place: Place, random: Random) -> None:
        self.place = place
        self.random = random
        self.daemon = Daemon(place)
        self.seen: set[str] = set()
        self.killed: list[str] = []
        place.steps(STEPS)

    def rounds(self, number: int) -> None:
        """Do so many, with a look at everything after each."""
        with self.daemon:
            self.settle()
            for _ in range(number):
                self.round()
        self.place.assert_clean(ORPHANS)

    def round(self) -> None:
        """Start one or two runs, kill something at a moment of chance, and look."""
        running = [self.place.events() for _ in range(self.random.randint(1, 2))]
        time.sleep(self.random.uniform(0, 3.0 if self.place.provider == "qemu" else 1.2))
        name, victim = self.random.choice(self._victims(running))
        self.killed.append(name)
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.kill(victim, signal.SIGKILL)
        for one in running:
            with one:
                self.look_at(one.end())
        if name == "daemon":
            self.place.assert_no_process(ORPHANS)
            self.daemon.up()
        self.settle()

    def _victims(self, running: list[Running]) -> list[tuple[str, int]]:
        """One of each kind there is."""
        kinds = {
            "daemon": [self.daemon.pid],
            "runner": [self.daemon.runner],
            "worker": self.daemon.workers,
            "client": [one.process.pid for one in running if one.process.poll() is None],
            "vm": vm_processes(self.place),
        }
        return [(name, self.random.choice(pids)) for name, pids in kinds.items() if pids]

    def look_at(self, ended: Ended) -> None:
        """A run has ended in one of the ways there are, and had a VM of its own and nobody else's."""
        assert ended.code in CODES, ended
        assert "Traceback" not in ended.stderr, (self.killed[-1], ended.stderr)
        created = ended.of("session.created")
        if ended.code == 0:
            assert len(created) == len(ended.of("session.released")) == 1, ended
        for session in created:
            boot = str(session["boot_id"])
            assert boot not in self.seen, f"a VM was shared: {boot}"
            self.seen.add(boot)
            told = {line.split()[1] for line in ended.output().splitlines() if line.startswith("boot ")}
            assert self.place.provider != "qemu" or told <= {boot}, "the guest does not confirm it"

    def settle(self) -> None:
        """By itself the pool comes back to its target, and every VM that lives is one of the pool's."""
        left = settled(self._unsettled, AT_TARGET)
        assert not left, (self.killed[-1:], left)

    def _unsettled(self) -> list[str]:
        status = self.daemon.status
        pool = status["providers"][self.place.provider]["pool"]
        wrong = [
            f"{name} is {pool[name]}" for name in ("active", "resetting", "making", "ending") if pool[name]
        ]
        wrong += [f"session {session['id']}" for session in status["sessions"]]
        roots = [pid for pid in vm_processes(self.place) if parent(pid) == status["pid"]]
        if pool["idle"] < 1 or len(roots) != pool["idle"]:
            wrong.append(f"{pool['idle']} idle VMs, {len(roots)} processes")
        return wrong
