"""Clearing what killed owners left: cheap where there is nothing, so that every run begins with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.records import record
from cloche.vm import leases

if TYPE_CHECKING:
    from pathlib import Path

    from cloche.session.registry import ActiveSession, SessionRegistry


@record
class Leftovers:
    """What was cleared: places of sessions whose processes are dead, and VMs whose owners are."""

    sessions: tuple[ActiveSession, ...]
    vms: tuple[leases.Collected, ...]


async def collect_leftovers(registry: SessionRegistry, vms: Path) -> Leftovers:
    """Clear dead sessions, and end and remove the VMs of dead owners in the folder ``vms``.

    A VM that cannot be cleared is told in its ``problem``. ProviderError when sessions cannot be looked at.
    """
    return Leftovers(tuple(await registry.collect()), tuple(leases.collect(vms)))
