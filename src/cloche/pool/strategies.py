"""Which of several waiting VMs a caller gets: small classes, named in the configuration.

Other packages add strategies by the entry point group ``cloche.pool_strategies``: a name, and something that,
called without arguments, makes a Strategy. Each image and shape has a strategy object of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cloche.errors import UsageError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

ENTRY_POINTS = "cloche.pool_strategies"
_SHORTEST = 1e-6


class Candidate(Protocol):
    """A waiting VM. Times are seconds, moments the event loop's; ``last_used`` and ``exec_time`` may be 0: not yet."""

    @property
    def id(self) -> str:
        """The VM's id."""

    @property
    def uses(self) -> int:
        """How often it was used."""

    @property
    def last_used(self) -> float:
        """When it was given back last."""

    @property
    def resume_time(self) -> float:
        """What making or resetting it took last."""

    @property
    def exec_time(self) -> float:
        """What running a small program in it took."""


class Strategy(Protocol):
    """Chooses among waiting VMs."""

    def choose(self, candidates: Sequence[Candidate]) -> Candidate:
        """One of ``candidates``, of which there is at least one; they come in the order they became ready."""


class FirstAvailable:
    """The one that has waited longest."""

    def choose(self, candidates: Sequence[Candidate]) -> Candidate:
        """See Strategy."""
        return candidates[0]


class RoundRobin:
    """Each in its turn, by id."""

    def __init__(self) -> None:
        self._last = ""

    def choose(self, candidates: Sequence[Candidate]) -> Candidate:
        """See Strategy."""
        after = [one for one in candidates if one.id > self._last]
        chosen = min(after or candidates, key=lambda one: one.id)
        self._last = chosen.id
        return chosen


class LeastRecentlyUsed:
    """The one whose last use is longest ago, one never used before all others."""

    def choose(self, candidates: Sequence[Candidate]) -> Candidate:
        """See Strategy."""
        return min(candidates, key=lambda one: one.last_used)


class MostRecentlyUsed:
    """The one used last."""

    def choose(self, candidates: Sequence[Candidate]) -> Candidate:
        """See Strategy."""
        return max(candidates, key=lambda one: one.last_used)


class BestPerformance:
    """The one that was fastest to start and to run a program."""

    def choose(self, candidates: Sequence[Candidate]) -> Candidate:
        """See Strategy."""
        return min(candidates, key=_slowness)


class WeightedRandom:
    """Any, each with a probability in proportion to its speed."""

    def __init__(self, source: random.Random | None = None) -> None:
        import random

        self._choices = (source or random).choices

    def choose(self, candidates: Sequence[Candidate]) -> Candidate:
        """See Strategy."""
        weights = [1 / max(_slowness(one), _SHORTEST) for one in candidates]
        return self._choices(candidates, weights)[0]


def _slowness(candidate: Candidate) -> float:
    return candidate.resume_time + candidate.exec_time


STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "first-available": FirstAvailable,
    "round-robin": RoundRobin,
    "least-recently-used": LeastRecentlyUsed,
    "most-recently-used": MostRecentlyUsed,
    "best-performance": BestPerformance,
    "weighted-random": WeightedRandom,
}


def find_strategy(name: str) -> Callable[[], Strategy]:
    """What makes strategies of this name. UsageError for an unknown one, naming those there are."""
    if name in STRATEGIES:
        return STRATEGIES[name]
    from importlib.metadata import entry_points

    others = entry_points(group=ENTRY_POINTS)
    if name in others.names:
        made: Callable[[], Strategy] = others[name].load()
        return made
    known = ", ".join([*STRATEGIES, *sorted(others.names)])
    raise UsageError(f"there is no pool strategy {name!r}", hint=f"[pool] strategy is one of {known}")
