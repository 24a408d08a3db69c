"""The order that ``needs`` puts jobs in."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloche.workflow.model import Job


def layers(jobs: Mapping[str, Job]) -> tuple[tuple[str, ...], ...]:
    """Return job ids in layers: each job stands one layer after the last one it needs, in file order.

    ``jobs`` is a checked workflow's: every need is known and there is no cycle (CycleError otherwise).
    """
    sorter = TopologicalSorter({id_: job.needs for id_, job in jobs.items()})
    sorter.prepare()
    place = {id_: index for index, id_ in enumerate(jobs)}
    result = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        result.append(tuple(ready))
        sorter.done(*ready)
    return tuple(result)


def dependents(jobs: Mapping[str, Job], id_: str) -> tuple[str, ...]:
    """Return every job that needs ``id_``, directly or through others, in file order."""
    needed_by: dict[str, list[str]] = {}
    for other, job in jobs.items():
        for need in job.needs:
            needed_by.setdefault(need, []).append(other)
    return _reachable(jobs, id_, needed_by)


def ancestors(jobs: Mapping[str, Job], id_: str) -> tuple[str, ...]:
    """Return every job that ``id_`` needs, directly or through others, in file order."""
    return _reachable(jobs, id_, {other: list(job.needs) for other, job in jobs.items()})


def _reachable(jobs: Mapping[str, Job], start: str, edges: Mapping[str, list[str]]) -> tuple[str, ...]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = [other for other in edges.get(waiting.pop(), ()) if other not in found]
        found.update(new)
        waiting += new
    return tuple(other for other in jobs if other in found)
