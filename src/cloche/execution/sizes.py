"""How large a VM the labels of jobs ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cloche.units import format_size
from cloche.workflow.runson import size_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cloche.workflow.runson import Size


class Ask(NamedTuple):
    """What a label asks for: how much (``cpus``, or bytes of ``memory``) of what."""

    what: str
    amount: int
    label: str

    def __str__(self) -> str:
        return f"{shown(self.what, self.amount)} ('{self.label}')"

    def exceeds(self, size: Size) -> bool:
        """Tell whether that is more than ``size`` has."""
        return self.amount > (getattr(size, self.what) or 0)


def asks(labels: Sequence[str]) -> list[Ask]:
    """Return the largest asks of a job's labels, at most one of each kind."""
    found: dict[str, Ask] = {}
    for label in labels:
        size = size_of(label)
        for what in ("cpus", "memory"):
            amount = getattr(size, what, None)
            if amount and (what not in found or amount > found[what].amount):
                found[what] = Ask(what, amount, label)
    return list(found.values())


def shown(what: str, amount: int) -> str:
    """Say an amount with its unit."""
    return f"{amount} vCPU{'s' * (amount != 1)}" if what == "cpus" else f"{format_size(amount)} of memory"
