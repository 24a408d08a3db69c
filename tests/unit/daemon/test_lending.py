from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from cloche.daemon.lending import LentVm, borrow, lend
from cloche.errors import GuestError, GuestLost, ProviderError
from cloche.session import Session, SessionContext
from cloche.vm.fake import FakeProvider
from cloche.vm.inbox import Inbox
from cloche.vm.provider import Allocation, VmSpec
from tests.unit.vm.fake_agent import HELLO, FakeAgent

if TYPE_CHECKING:
    from cloche.vm.channel import AgentClient
    from cloche.vm.provider import Vm

CONTEXT = SessionContext("Test")


def session(vm: Vm) -> Session:
    return Session("sess-1", CONTEXT, Allocation(vm, 0.5, "warm"), 1.0, 1.0)


def lent_by(agent: FakeAgent) -> Session:
    return session(LentVm("vm-1", "qemu", agent.client))


async def adopt(agent: FakeAgent) -> None:
    await agent.greet()
    adopting = asyncio.create_task(
        agent.client.adopt(HELLO, hostname="vm-1", machine_id="abc", entropy=b"seed", env={"A": "1"})
    )
    await agent.answer("adopt", boot_id="boot")
    await adopting


async def passed_on(agent: FakeAgent) -> Session:
    """What a borrower makes of a session; what is told passes through JSON as between processes."""
    told, descriptor = lend(lent_by(agent))
    return await borrow(json.loads(json.dumps(told)), descriptor, CONTEXT)


async def test_a_borrower_goes_on_where_the_lender_left_off(tmp_path: Path) -> None:
    (tmp_path / "inbox").touch()
    async with FakeAgent(inbox=Inbox(tmp_path / "inbox")) as agent:
        await adopt(agent)
        info = agent.client.info
        used = agent.client._last_number
        got = await passed_on(agent)
        assert (got.id, got.vm_id, got.vm_type, got.allocation.source) == ("sess-1", "vm-1", "qemu", "warm")
        guest = cast("AgentClient", got.vm.guest)
        assert guest.info == info
        assert guest.inbox is not None
        asking = asyncio.create_task(guest.ping())
        header, _ = await agent.answer("ping")
        assert cast("int", header["r"]) > used, "an answer to a number used before could be mistaken"
        assert await asking < 10
        await guest.close()


async def test_the_lender_has_no_use_of_it_meanwhile() -> None:
    async with FakeAgent() as agent:
        await adopt(agent)
        got = await passed_on(agent)
        with pytest.raises(GuestLost, match="another process"):
            await agent.client.ping()
        await cast("AgentClient", got.vm.guest).close()


async def test_the_lender_ends_it_for_both() -> None:
    async with FakeAgent() as agent:
        await adopt(agent)
        guest = cast("AgentClient", (await passed_on(agent)).vm.guest)
        asking = asyncio.create_task(guest.ping())
        await agent.hear()
        await agent.client.close()
        with pytest.raises(GuestLost):
            await asking
        await guest.close()


async def test_a_guest_in_use_is_not_lent() -> None:
    async with FakeAgent() as agent:
        await adopt(agent)
        asking = asyncio.create_task(agent.client.ping())
        await agent.hear()
        with pytest.raises(GuestError, match="in use"):
            lend(lent_by(agent))
        asking.cancel()


async def test_a_vm_without_a_channel_cannot_be_lent() -> None:
    provider = FakeProvider()
    vm = (await provider.allocate(VmSpec())).vm
    with pytest.raises(ProviderError, match="cannot be lent"):
        lend(session(vm))
    await provider.close()


async def test_a_vm_whose_files_are_gone_is_not_borrowed(tmp_path: Path) -> None:
    (tmp_path / "inbox").touch()
    async with FakeAgent(inbox=Inbox(tmp_path / "inbox")) as agent:
        await adopt(agent)
        (tmp_path / "inbox").unlink()
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(ProviderError, match="files are gone"):
            await passed_on(agent)
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1, (
            "more than the lender's own copy is left"
        )
