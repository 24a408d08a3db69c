"""What all rules say their findings with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cloche.verify.observations import RunSeen

Finding = tuple[str, str, str, bool]
"""A requirement, what should be so, what was measured, whether that is enough."""


def vm_id_of(run: RunSeen) -> str:
    """Return the VM id of a run's first session; empty without one."""
    return run.sessions[0].vm_id if run.sessions else ""


def boot_id_of(run: RunSeen) -> str:
    """Return the boot id that a run's first session told; empty without one."""
    return run.sessions[0].boot_id if run.sessions else ""


def times(number: int, noun: str) -> str:
    """Count things: ``1 step``, ``2 steps``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(ids: Iterable[str]) -> str:
    """List ids in order, or say that there are none."""
    return ", ".join(sorted(ids)) or "none"


def few(names: Sequence[str]) -> str:
    """Name the first few, and how many more there are."""
    shown = ", ".join(names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown  # noqa: PLR2004 - a line of a table


def adding(names: Sequence[str], before: str = "") -> str:
    """Add names to a measurement, if there are any."""
    return f"; {before}{few(names)}" if names else ""
