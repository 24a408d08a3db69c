"""A VM of the pool's, and the handle that a caller gets of it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from cloche.pool.shelf import Shelf
    from cloche.vm.guest import Guest, Inspection
    from cloche.vm.provider import Source, Vm


class State(enum.Enum):
    """Where a VM of the pool is in its life."""

    MAKING = "making"
    IDLE = "idle"
    ACTIVE = "active"
    RESETTING = "resetting"
    ENDING = "ending"


class HeldVm:
    """A VM as one caller has it, for as long as it has it.

    The guest is the one of this holder's time: once the VM is given back and reset, it is gone for good, and
    nothing of the next holder's can be reached through it.
    """

    __slots__ = ("guest", "id", "provider", "vm")

    def __init__(self, vm: Vm) -> None:
        self.id: str = vm.id
        self.provider: str = vm.provider
        self.guest: Guest = vm.guest
        self.vm = vm


class Member:
    """A VM of the pool's. Times are the event loop's, in seconds.

    ``last_used`` is when it was given back last, ``resume_time`` what making or resetting it took last, and
    ``exec_time`` what the throw-away process took (0 before there was one): what strategies choose by.
    """

    def __init__(self, vm: Vm, shelf: Shelf, now: float, source: Source, took: float) -> None:
        self.vm = vm
        self.shelf = shelf
        self.state = State.MAKING
        self.made_at = now
        self.source: Source = source
        self.uses = 0
        self.idle_since = now
        self.last_used = 0.0
        self.resume_time = took
        self.exec_time = 0.0
        self.baseline: Inspection | None = None
        self.holder: HeldVm | None = None
        self.minder: asyncio.Task[None] | None = None

    @property
    def id(self) -> str:
        """The VM's id."""
        return self.vm.id
