"""The VMs of one image and shape, and how many of them are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.pool.member import Member, State

if TYPE_CHECKING:
    from cloche.config import PoolSettings
    from cloche.pool.strategies import Strategy
    from cloche.vm.provider import VmSpec

FIRST_PAUSE = 0.5
"""Seconds before a VM is tried again that could not be made; twice as long each time."""
LONGEST_PAUSE = 60.0


class Shelf:
    """One image and shape. ``kept``: the operator wants it ready even when nobody asks. Times are the loop's."""

    def __init__(self, spec: VmSpec, settings: PoolSettings, strategy: Strategy, now: float) -> None:
        self.spec = spec
        self.kept = False
        self.members: dict[str, Member] = {}
        self.starting = 0
        self.asked_at = now
        self.not_before = now
        self._settings = settings
        self._strategy = strategy
        self._failures = 0

    def count(self, state: State) -> int:
        """How many VMs are in a state."""
        found = sum(member.state is state for member in self.members.values())
        return found + self.starting if state is State.MAKING else found

    @property
    def alive(self) -> int:
        """How many VMs there are, in all states."""
        return len(self.members) + self.starting

    @property
    def coming(self) -> int:
        """How many VMs are ready or will be by themselves."""
        return self.count(State.IDLE) + self.count(State.MAKING) + self.count(State.RESETTING)

    @property
    def idle(self) -> list[Member]:
        """Those that are ready, in the order they became so."""
        ready = [member for member in self.members.values() if member.state is State.IDLE]
        return sorted(ready, key=lambda member: member.idle_since)

    def wanted(self, now: float) -> int:
        """How many VMs are to be ready."""
        settings = self._settings
        if now - self.asked_at < settings.max_age:
            return max(settings.target, settings.min if self.kept else 0)
        return settings.min if self.kept else 0

    def choose(self) -> Member:
        """The ready VM that is handed out next; there must be one."""
        chosen = self._strategy.choose(self.idle)
        return self.members[chosen.id]

    def failed(self, now: float) -> float:
        """A VM could not be made: seconds until refilling goes on."""
        pause = min(FIRST_PAUSE * 2.0**self._failures, LONGEST_PAUSE)
        self._failures = min(self._failures + 1, 30)
        self.not_before = now + pause
        return pause

    def succeeded(self) -> None:
        """A VM was made."""
        self._failures = 0
