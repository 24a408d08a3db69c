"""A session that its run has done with, and the daemon has for itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, cast

import pytest

from cloche.daemon.keeping import KeptSession
from cloche.daemon.lending import borrow, lend
from cloche.daemon.packets import Packets
from cloche.errors import GuestError, GuestLost, UsageError
from cloche.session import Session, SessionContext
from cloche.terminal.visit import Address, Knocking
from tests.unit.daemon.test_lending import adopt, lent_by
from tests.unit.vm.fake_agent import SHORT, FakeAgent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cloche.session import SessionManager
    from cloche.vm.channel import AgentClient

DEADLINE = 10
ROOM = {
    "job": "Build", "id": "build", "step": "Run make", "root": "j3", "env": {"A": "1"}, "cwd": "/tmp", "user": None,
}  # fmt: skip
MESSAGE: dict[str, Any] = {"run": "run-1", "workflow": "CI", "seconds": 60.0, "rooms": [ROOM]}


class Manager:
    """A session manager that writes down what is released."""

    def __init__(self) -> None:
        self.released: list[Session] = []

    def touch(self, session: Session) -> None:
        """Nothing to note."""

    async def release_session(self, session: Session) -> None:
        self.released.append(session)


class Kept:
    """A session that was lent, used and given back."""

    def __init__(self, agent: FakeAgent, doors: Path) -> None:
        self.agent = agent
        self.doors = doors
        self.session = lent_by(agent)
        self.manager = Manager()
        self.gone: list[KeptSession] = []

    async def give_back(self) -> int:
        told, descriptor = lend(self.session)
        got = await borrow(json.loads(json.dumps(told)), descriptor, SessionContext("Test"))
        guest = cast("AgentClient", got.vm.guest)
        number = guest.give_back()
        with pytest.raises(GuestLost):
            await guest.ping()
        return number

    async def begin(self, **changed: object) -> KeptSession:
        message = {**MESSAGE, "number": await self.give_back(), **changed}
        manager = cast("SessionManager", self.manager)
        kept = KeptSession(self.session, manager, json.loads(json.dumps(message)), self.gone.append)
        beginning = asyncio.create_task(kept.begin(self.doors))
        try:
            await self.agent.answer("ping")
        finally:
            async with asyncio.timeout(DEADLINE):
                await beginning
        return kept


@contextlib.asynccontextmanager
async def lending(folder: Path) -> AsyncIterator[Kept]:
    async with FakeAgent(SHORT) as agent:
        await adopt(agent)
        yield Kept(agent, folder / "doors")


async def test_its_door_tells_what_there_is_until_it_is_ended(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        kept = await lent.begin()
        address = Address("run-1", lent.doors / "run-1")
        told = await Knocking(Packets).look(address)
        assert told is not None
        assert (told["run"], told["vm"], told["ends"]) == ("run-1", "vm-1", True)
        assert told["rooms"] == [{"job": "Build", "id": "build", "step": "Run make"}]
        assert 0 < kept.until - time.time() < 61
        assert kept.status()["kept_until"] == kept.until
        await Knocking(Packets).end(address)
        await kept.end()
        assert lent.manager.released == [lent.session]
        assert lent.gone == [kept]
        assert not address.path.exists()


async def test_it_ends_when_its_time_is_up(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        kept = await lent.begin(seconds=0.05)
        async with asyncio.timeout(DEADLINE):
            while lent.gone != [kept]:  # noqa: ASYNC110 - told by a callback of the daemon's
                await asyncio.sleep(0.01)
        assert lent.manager.released == [lent.session]


async def test_it_ends_with_its_guest(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        kept = await lent.begin()
        await lent.agent.hang_up()
        async with asyncio.timeout(DEADLINE):
            while lent.gone != [kept]:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)


async def test_whoever_takes_it_away_ends_it(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        kept = await lent.begin()
        assert lent.session.on_loss is not None
        lent.session.on_loss("the machine goes down")
        await kept.end()
        assert lent.gone == [kept]


async def test_a_guest_that_does_not_answer_is_not_kept(tmp_path: Path) -> None:
    async with lending(tmp_path) as lent:
        number = await lent.give_back()
        kept = KeptSession(
            lent.session,
            cast("SessionManager", lent.manager),
            {**MESSAGE, "number": number},
            lent.gone.append,
        )
        with pytest.raises(GuestError):
            await kept.begin(lent.doors)
        assert lent.manager.released == [], "it is still its borrower's"
        assert not (lent.doors / "run-1").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"seconds": 0}, {"seconds": 1e9}, {"seconds": "soon"}, {"seconds": None}, {"rooms": None}, {"rooms": [1]},
        {"rooms": [{**ROOM, "env": 1}]}, {"rooms": [{}]}, {"number": None},
    ],
)  # fmt: skip
async def test_nonsense_keeps_nothing(tmp_path: Path, changed: dict[str, object]) -> None:
    async with lending(tmp_path) as lent:
        with pytest.raises((UsageError, KeyError, TypeError, ValueError)):
            await lent.begin(**changed)
        assert lent.manager.released == []
        with contextlib.suppress(FileNotFoundError):
            assert list(lent.doors.iterdir()) == []


async def test_what_was_handed_to_nobody_cannot_be_taken_back() -> None:
    async with FakeAgent() as agent:
        await adopt(agent)
        with pytest.raises(GuestError, match="handed to nobody"):
            await agent.client.take_back(1)


async def test_a_guest_in_use_is_not_given_back() -> None:
    async with FakeAgent() as agent:
        await adopt(agent)
        asking = asyncio.create_task(agent.client.ping())
        await agent.hear()
        with pytest.raises(GuestError, match="in use"):
            agent.client.give_back()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
