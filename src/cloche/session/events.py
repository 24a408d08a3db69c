"""What the session manager tells an observer, for metrics: one small record for each thing that happens.

Times are seconds. ``active`` is how many sessions the manager has once it has happened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.vm.provider import Source


@record
class Created:
    """A session got its place and its VM: ``waited`` for the one, ``seconds`` for the other."""

    session_id: str
    vm_id: str
    provider: str
    image: str
    source: Source
    seconds: float
    waited: float
    active: int


@record
class Refused:
    """The limit was reached, and stayed so for as long as the session was to wait."""

    limit: int
    waited: float
    active: int


@record
class Failed:
    """A session had its place and got no VM. ``reason`` is the error's class, ``Cancelled`` if nobody waits for it."""

    reason: str
    provider: str
    image: str
    seconds: float
    active: int


@record
class Stale:
    """A session without activity for ``idle`` seconds is about to be released."""

    session_id: str
    vm_id: str
    idle: float


@record
class Released:
    """A session ended after ``seconds`` of life. ``clean`` is false if its VM could not be given back in order."""

    session_id: str
    vm_id: str
    provider: str
    seconds: float
    clean: bool
    active: int


SessionEvent: TypeAlias = Created | Refused | Failed | Stale | Released
"""Everything a session manager tells."""

if TYPE_CHECKING:
    SessionObserver = Callable[[SessionEvent], None]
    """Is told at once, in the manager's own task: it must not block. What it raises is logged, nothing more."""
