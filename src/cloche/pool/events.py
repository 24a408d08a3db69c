"""What a pool tells its observer, and its counts. Times are seconds.

An observer is called in the pool's own event loop, in the order things happen, and must return soon.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from cloche.records import record

if TYPE_CHECKING:
    from cloche.vm.provider import Source

Why = Literal["released", "age", "uses", "dirty", "unhealthy", "lost", "reset failed", "surplus", "closed"]
"""Why a VM was ended.

``released``: given back to a pool that does not recycle. ``age`` and ``uses``: past ``max_age``, ``max_uses``.
``dirty``: failed its check. ``unhealthy``: did not answer while it waited. ``lost``: died while it waited.
``surplus``: more than are wanted waited. ``closed``: the pool was closed.
"""

Reason = Literal["timeout", "cancelled", "closed", "provider", "image"]
"""Why a caller got no VM; ``closed``: the pool was, ``image``: there is none of that name."""


@record
class VmHandedOut:
    """A VM was allocated; ``hit`` when it was waiting. ``seconds`` is what the caller waited."""

    vm_id: str
    provider: str
    image: str
    source: Source
    seconds: float
    hit: bool


@record
class AllocationFailed:
    """A caller got no VM."""

    provider: str
    image: str
    reason: Reason
    seconds: float


@record
class VmReleased:
    """A caller gave a VM back."""

    vm_id: str
    provider: str


@record
class VmMade:
    """A provider made a VM."""

    vm_id: str
    provider: str
    image: str
    source: Source
    seconds: float


@record
class MakingFailed:
    """A provider made no VM for the pool, or one that failed its check; ``error`` says why, in words."""

    provider: str
    image: str
    error: str
    seconds: float


@record
class VmReset:
    """A used VM was put back to its template."""

    vm_id: str
    provider: str
    image: str
    seconds: float


@record
class VmEnded:
    """A VM was ended; where ``why`` is not a plain matter of course, ``detail`` says more."""

    vm_id: str
    provider: str
    why: Why
    detail: str = ""


PoolEvent = VmHandedOut | AllocationFailed | VmReleased | VmMade | MakingFailed | VmReset | VmEnded
Observer = Callable[[PoolEvent], None]


@record
class PoolStats:
    """Evidence: VMs handed out and given back since the start, and those of each state now.

    ``active`` are out with a caller, ``idle`` ready, ``resetting`` being put back to their template and checked,
    ``making`` on their way, ``ending`` on their way out. ``hits`` counts allocations that found a VM waiting.
    """

    allocated: int
    released: int
    active: int
    idle: int = 0
    resetting: int = 0
    making: int = 0
    ending: int = 0
    hits: int = 0

    @property
    def misses(self) -> int:
        """Allocations that had to wait for a VM to be made or reset."""
        return self.allocated - self.hits

    @property
    def alive(self) -> int:
        """VMs there are, in all states."""
        return self.active + self.idle + self.resetting + self.making + self.ending

    @property
    def utilization(self) -> float:
        """How much of the pool is out with callers: from 0 to 1."""
        return self.active / self.alive if self.alive else 0.0
