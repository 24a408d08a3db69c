"""The order that ``needs`` puts jobs in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloche.workflow.model import Job


def layers(jobs: Mapping[str, Job]) -> tuple[tuple[str, ...], ...]:
    """Return job ids in layers: each job stands one layer after the last one it needs, in file order.

    ``jobs`` is a checked workflow's: every need is known and there is no cycle (ValueError otherwise).
    """
    waiting = dict(jobs)
    done: set[str] = set()
    result = []
    while waiting:
        layer = tuple(id_ for id_, job in waiting.items() if done.issuperset(job.needs))
        if not layer:
            raise ValueError(f"jobs that wait for each other or for unknown jobs: {', '.join(waiting)}")
        result.append(layer)
        done.update(layer)
        for id_ in layer:
            del waiting[id_]
    return tuple(result)


def dependents(jobs: Mapping[str, Job], id_: str) -> tuple[str, ...]:
    """Return every job that needs ``id_``, directly or through others, in file order."""
    found = {id_}
    for layer in layers(jobs):
        found.update(other for other in layer if found.intersection(jobs[other].needs))
    return tuple(other for other in jobs if other in found and other != id_)


def ancestors(jobs: Mapping[str, Job], id_: str) -> tuple[str, ...]:
    """Return every job that ``id_`` needs, directly or through others, in file order."""
    found = {id_}
    for layer in reversed(layers(jobs)):
        for other in layer:
            if other in found:
                found.update(jobs[other].needs)
    return tuple(other for other in jobs if other in found and other != id_)
