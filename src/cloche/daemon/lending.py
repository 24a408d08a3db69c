"""A session's VM on its way from the daemon to the process that uses it: what is told, and the guest's channel."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloche.errors import GuestError, ProviderError
from cloche.session import Session, SessionContext
from cloche.vm.channel import AgentClient
from cloche.vm.guest import GuestInfo
from cloche.vm.inbox import Inbox
from cloche.vm.provider import Allocation, VmSpec

if TYPE_CHECKING:
    from cloche.daemon.packets import Message


class LentVm:
    """A VM of the daemon's, as seen by the process that it is lent to."""

    def __init__(self, vm_id: str, provider: str, guest: AgentClient) -> None:
        self.id = vm_id
        self.provider = provider
        self.guest = guest


def lend(session: Session) -> tuple[Message, int]:
    """Tell of a session, and give its guest's channel away: a descriptor, the caller's to close.

    ProviderError for a VM whose guest speaks by no channel.
    """
    guest = session.vm.guest
    if not isinstance(guest, AgentClient):
        raise ProviderError(f"VMs of the {session.vm_type} provider cannot be lent to another process")
    info = dataclasses.asdict(guest.info)
    channel, number = guest.hand_over()
    told = {
        "session": session.id,
        "vm": session.vm_id,
        "provider": session.vm_type,
        "source": session.allocation.source,
        "duration": session.allocation.duration,
        "started_at": session.started_at,
        "info": info,
        "number": number,
        "inbox": str(guest.inbox.path) if guest.inbox else None,
    }
    return told, channel.detach()


async def borrow(told: Message, descriptor: int, context: SessionContext) -> Session:
    """Make a session of what ``lend`` told. Owns the descriptor. ProviderError when the guest is gone already."""
    guest = await borrow_guest(told, descriptor)
    vm = LentVm(told["vm"], told["provider"], guest)
    allocation = Allocation(vm, told["duration"], told["source"])
    started = told["started_at"]
    return Session(told["session"], context, allocation, started_at=started, last_activity=started)


async def borrow_guest(told: Message, descriptor: int) -> AgentClient:
    """Make the guest of what ``lend`` told; as ``borrow``."""
    channel = socket.socket(fileno=descriptor)
    try:
        guest = AgentClient(channel, inbox=Inbox(Path(told["inbox"])) if told["inbox"] else None)
    except OSError as wrong:
        channel.close()
        raise ProviderError(f"the VM's files are gone: {wrong}") from wrong
    try:
        await guest.take_over(GuestInfo(**told["info"]), told["number"])
    except (GuestError, OSError) as wrong:
        await guest.close()
        raise ProviderError(f"the daemon's VM is gone: {wrong}") from wrong
    return guest


def spec_fields(spec: VmSpec) -> dict[str, Any]:
    """Return a VM's shape as a message holds it."""
    return dataclasses.asdict(spec)
