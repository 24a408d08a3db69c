"""Our eyes: every call is seen, in order, and nobody waits for who will not come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from cloche.errors import ProviderError
from cloche.events import Notice, RunFinished, SessionCreated, StepFinished, StepOutput, StepStarted
from cloche.pool import VmPool
from cloche.session import SessionContext, SessionRegistry
from cloche.verify import watching
from cloche.verify.probe import MAX_OUTPUT, StepPlan, WorkflowPlan
from cloche.verify.watching import Meeting, MeetingManager, RunRecorder, Ticks, WatchedProvider
from cloche.vm.fake import FakeProvider
from cloche.vm.provider import VmSpec
from tests.unit.verify.cheats import Honest, NeverEnds

if TYPE_CHECKING:
    from pathlib import Path

    from cloche.vm.provider import Vm


class BadReset(Honest):
    async def reset(self, vm: Vm) -> None:
        await self.inner.release(vm)
        raise ProviderError("the guest did not come back")


async def no_room(_spec: VmSpec, number: int) -> None:
    if number == 2:
        raise ProviderError("no room")


async def test_every_call_is_noted_with_its_place_in_time() -> None:
    watched = WatchedProvider(FakeProvider(on_allocate=no_room), Ticks())
    vm = (await watched.allocate(VmSpec())).vm
    with pytest.raises(ProviderError):
        await watched.allocate(VmSpec())
    boot_id = vm.guest.info.boot_id
    await watched.reset(vm)
    assert watched.alive == {vm.id}
    await watched.release(vm)

    made, failed, reset, released = watched.calls
    assert [call.kind for call in watched.calls] == ["allocate", "allocate", "reset", "release"]
    assert (made.vm_id, made.boot_id, made.source, made.error) == (vm.id, boot_id, "booted", None)
    assert (failed.vm_id, failed.error) == ("", "no room")
    assert reset.boot_id not in {boot_id, ""}
    assert released.answers is False
    ticks = [tick for call in watched.calls for tick in (call.began, call.ended)]
    assert ticks == sorted(set(ticks))
    assert watched.alive == set()


async def test_a_guest_that_outlives_its_release_is_seen() -> None:
    watched = WatchedProvider(NeverEnds(), Ticks())
    await watched.release((await watched.allocate(VmSpec())).vm)
    assert watched.calls[-1].answers is True


async def test_a_guest_that_keeps_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "_ANSWER_DEADLINE", 0.01)

    class Silent(NeverEnds):
        async def release(self, vm: Vm) -> None:
            async def never() -> float:
                await asyncio.Event().wait()
                return 0.0

            vm.guest.ping = never  # type: ignore[method-assign] # a guest that hangs

    watched = WatchedProvider(Silent(), Ticks())
    await watched.release((await watched.allocate(VmSpec())).vm)
    assert watched.calls[-1].answers is False


async def test_a_vm_that_could_not_be_reset_is_gone() -> None:
    watched = WatchedProvider(BadReset(), Ticks())
    vm = (await watched.allocate(VmSpec())).vm
    with pytest.raises(ProviderError):
        await watched.reset(vm)
    assert (watched.calls[-1].vm_id, watched.calls[-1].error) == (vm.id, "the guest did not come back")
    assert watched.alive == set()


class Place(Meeting):
    """Tells when the first has come."""

    def __init__(self) -> None:
        super().__init__(2)
        self.first = asyncio.Event()

    def arrive(self) -> None:
        super().arrive()
        self.first.set()


def manager(folder: Path, place: Place, provider: FakeProvider | None = None) -> MeetingManager:
    return MeetingManager(VmPool(provider or FakeProvider()), SessionRegistry(folder), 9, place)


async def test_sessions_meet_before_anyone_goes_on(tmp_path: Path) -> None:
    place = Place()
    async with manager(tmp_path, place) as sessions:
        first = asyncio.create_task(sessions.create_session(SessionContext("one")))
        await place.first.wait()
        assert not first.done()
        await sessions.create_session(SessionContext("two"))
        async with asyncio.timeout(5):
            await first


async def test_one_that_gets_no_vm_is_not_waited_for(tmp_path: Path) -> None:
    place = Place()
    async with manager(tmp_path, place, FakeProvider(on_allocate=no_room)) as sessions:
        first = asyncio.create_task(sessions.create_session(SessionContext("one")))
        await place.first.wait()
        with pytest.raises(ProviderError):
            await sessions.create_session(SessionContext("two"))
        async with asyncio.timeout(5):
            await first


async def test_one_that_waits_too_long_gives_its_session_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MEETING_DEADLINE", 0.01)
    place = Place()
    async with manager(tmp_path, place) as sessions:
        with pytest.raises(ProviderError, match=r"were not there within 0\.01 s"):
            await sessions.create_session(SessionContext("one"))
        assert sessions.stats().active == 0


async def test_one_that_is_cancelled_while_it_waits_gives_its_session_back(tmp_path: Path) -> None:
    place = Place()
    async with manager(tmp_path, place) as sessions:
        waiting = asyncio.create_task(sessions.create_session(SessionContext("one")))
        await place.first.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert sessions.stats().active == 0


def test_a_recorder_keeps_what_was_seen_and_no_more() -> None:
    plan = WorkflowPlan("T1", (StepPlan(), StepPlan()))
    started: list[int] = []
    recorder = RunRecorder(plan, Ticks(), [plan.nonce], started.append)
    at: dict[str, Any] = {"run_id": "run-1", "at": 1.0}
    step: dict[str, Any] = {**at, "job": "verify", "leg": None, "step": 1}
    for event in (
        SessionCreated(
            session_id="sess-1", vm_id="vm-1", provider="fake", source="warm", duration_ms=84.0, kernel="6.1",
            boot_id="boot-1", **at,
        ),
        StepStarted(id="", name="look 1", **step),
        StepOutput(text=f"verify: boot_id=boot-1\n{plan.nonce}\n", **step),
        *(StepOutput(text="x" * MAX_OUTPUT, **step) for _ in range(3)),
        StepFinished(
            id="", name="look 1", vm_id="vm-1", boot_id="boot-1", outcome="success", conclusion="success", exit_code=0,
            outputs={}, duration_ms=1, **step,
        ),
        Notice(level="error", message="something broke", **at),
        RunFinished(conclusion="failure", duration_ms=1500, **at),
    ):  # fmt: skip
        recorder(event)
    seen = recorder.seen()
    assert started == [1]
    (session,), (one,) = seen.sessions, seen.steps
    assert (session.allocation, session.source, session.boot_id) == (0.084, "warm", "boot-1")
    assert (one.said.boot_id, one.nonces, one.challenge) == ("boot-1", (plan.nonce,), plan.steps[0].challenge)
    assert session.tick < one.began < one.ended < seen.ended
    assert (seen.conclusion, seen.seconds, seen.error) == ("failure", 1.5, "something broke")
    assert sum(map(len, recorder._outputs.values())) == MAX_OUTPUT
