"""The four allocation tests this project was asked for, where VMs cost nothing: on the fake."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from cloche.errors import SessionLimitReached
from cloche.pool import VmPool
from cloche.session import Session, SessionContext, SessionManager, SessionRegistry
from cloche.vm.fake import FakeProvider
from cloche.vm.guest import ExecSpec, JobRootSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cloche.vm.guest import JobRoot


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[SessionManager]:
    registry = SessionRegistry(tmp_path / "sessions")
    async with SessionManager(VmPool(FakeProvider()), registry, limit=3) as manager:
        yield manager


async def step(root: JobRoot, text: str) -> tuple[str, str]:
    """Run a step; its output and the boot id read at it."""
    process = await root.exec(ExecSpec(["sh", "-ec", text]))
    output = b"".join([chunk async for chunk in process.output()]).decode()
    return output, (await process.wait()).boot_id


async def workflow(session: Session, steps: int) -> tuple[list[str], set[str]]:
    """Run steps that each read what the one before left; what they saw, and the boot ids."""
    seen, boots = [], set()
    async with await session.vm.guest.open_job(JobRootSpec("build")) as root:
        for number in range(steps):
            text = f"[ ! -f /tmp/mark ] || cat /tmp/mark; echo {session.id}-{number} > /tmp/mark"
            output, boot_id = await step(root, text)
            seen.append(output.strip())
            boots.add(boot_id)
            await asyncio.sleep(0)
    return seen, boots


async def test_t1_one_workflow_of_five_steps_has_one_vm(sessions: SessionManager) -> None:
    async with sessions.session(SessionContext("five")) as session:
        seen, boots = await workflow(session, 5)
    assert seen == ["", *(f"{session.id}-{number}" for number in range(4))]
    assert boots == {session.vm.guest.info.boot_id}
    assert (sessions.stats().created, sessions.stats().pool.allocated) == (1, 1)


async def test_t2_three_workflows_at_once_have_three_vms(sessions: SessionManager) -> None:
    lengths = [5, 3, 7]
    made = [await sessions.create_session(SessionContext(f"flow {n}")) for n in lengths]
    results = await asyncio.gather(*(workflow(s, n) for s, n in zip(made, lengths, strict=True)))
    for session, length, (seen, _) in zip(made, lengths, results, strict=True):
        assert seen == ["", *(f"{session.id}-{number}" for number in range(length - 1))]
    assert len({session.vm_id for session in made}) == 3
    assert len(set.union(*(boots for _, boots in results))) == 3
    assert sessions.stats().pool.allocated == 3


async def test_t3_after_release_another_workflow_finds_nothing(sessions: SessionManager) -> None:
    boots = []
    for _ in range(2):
        async with sessions.session(SessionContext("again")) as session:
            seen, boot = await workflow(session, 2)
            assert seen[0] == ""
            boots.append(boot)
    assert boots[0] != boots[1]
    assert sessions.stats().pool.released == 2


async def test_t4_a_third_session_over_a_limit_of_two_is_refused(tmp_path: Path) -> None:
    registry = SessionRegistry(tmp_path / "sessions")
    async with SessionManager(VmPool(FakeProvider()), registry, limit=2) as sessions:
        first, second = [await sessions.create_session(SessionContext("CI")) for _ in range(2)]
        running = asyncio.gather(workflow(first, 3), workflow(second, 3))
        with pytest.raises(SessionLimitReached, match="limit of 2"):
            await sessions.create_session(SessionContext("one too many"))
        assert [len(seen) for seen, _ in await running] == [3, 3]
        await sessions.release_session(first)
        third = await sessions.create_session(SessionContext("now there is room"))
        assert (await workflow(third, 1))[0] == [""]
        assert sessions.stats().pool.allocated == 3
