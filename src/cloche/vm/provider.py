"""The VM port: what makes VMs, and what a VM is to the rest of the house.

Concrete providers live in the folders beside this file; only the composition root names them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, Protocol

from cloche.records import record

if TYPE_CHECKING:
    from cloche.vm.guest import Guest

Network = Literal["user", "none"]
Source = Literal["warm", "restored", "booted"]

MIB = 1024 * 1024
GIB = 1024 * MIB


@record
class VmSpec:
    """What a run asks of its VM. ``memory`` and ``disk`` are bytes; ``image`` is a name or digest in the store."""

    image: str = "default"
    cpus: int = 2
    memory: int = 2 * GIB
    disk: int = 16 * GIB
    network: Network = "user"


class Vm(Protocol):
    """An isolated guest. ``id`` stays the same for its life, unique on this machine."""

    @property
    def id(self) -> str:
        """The VM's id, ``vm-`` and 12 hexadecimal digits."""

    @property
    def provider(self) -> str:
        """The name of the provider that made it."""

    @property
    def guest(self) -> Guest:
        """The agent's client: the only way into the VM."""


@record
class Allocation:
    """A VM handed out: how long that took, in seconds, and whether it was waiting, restored or booted."""

    vm: Vm
    duration: float
    source: Source


class VmProvider(Protocol):
    """Makes VMs and ends them.

    ``allocate`` raises ProviderError when no VM can be made here and ImageError when the image is missing;
    ``release`` gives back everything the VM holds, never raises for a VM that already died, and may be called
    twice. ``reset`` makes a VM as if nothing had ever run in it. ``notes`` are lines the user should see once
    (for example: no KVM, so emulation, and what that costs).
    """

    @property
    def name(self) -> str:
        """``qemu``, ``sandbox``, ``fake``."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about VMs made here."""

    async def allocate(self, spec: VmSpec) -> Allocation:
        """Make a VM of this shape; its guest has answered and is its own (clock, entropy, names)."""

    async def release(self, vm: Vm) -> None:
        """End the VM and remove everything it left on the host."""

    async def reset(self, vm: Vm) -> None:
        """Put a VM back to its template: the same id, a new ``guest`` that never ran anything and is its own.

        The old guest is surely gone when this returns. Raises ProviderError where that cannot be done, or the VM
        is not one of this provider's; the VM has then been ended, as it has when the caller is cancelled.
        """

    async def close(self) -> None:
        """Release what is still alive, and the provider's own resources."""


def new_vm_id() -> str:
    """An id no other VM of this machine has."""
    return f"vm-{os.urandom(6).hex()}"
