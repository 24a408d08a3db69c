from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import GuestLost
from cloche.guest import protocol
from cloche.vm.inspection import read_inspection

from .fake_agent import FakeAgent

ANSWER: dict[str, Any] = {
    "boot_id": "b", "hostname": "h", "clock": 1.5, "entropy": "00ff", "state": {"files": ["a", "b\x1b[2J"]},
}  # fmt: skip


def test_what_the_guest_says_is_read_and_made_printable() -> None:
    found = read_inspection(ANSWER)
    assert (found.boot_id, found.hostname, found.clock, found.entropy) == ("b", "h", 1.5, b"\x00\xff")
    assert found.state == {"files": ("a", "b\N{REPLACEMENT CHARACTER}[2J")}


@pytest.mark.parametrize(
    "changes",
    [
        {"boot_id": None},
        {"hostname": "h" * 300},
        {"clock": "now"},
        {"clock": float("nan")},
        {"entropy": "not hexadecimal"},
        {"entropy": "00" * 500},
        {"state": None},
        {"state": {str(number): [] for number in range(100)}},
        {"state": {"files": "a"}},
        {"state": {"files": [1]}},
        {"state": {"files": ["x"] * 2000}},
        {"state": {"files": ["x" * 1000]}},
    ],
)
def test_what_no_agent_of_ours_would_say_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(protocol.ProtocolError):
        read_inspection({**ANSWER, **changes})


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.fixed_dictionaries({}, optional={key: st.just(ANSWER[key]) | JSON for key in ANSWER}))
def test_any_answer_is_read_or_refused(answer: dict[str, object]) -> None:
    try:
        found = read_inspection(answer)
    except protocol.ProtocolError:
        return
    assert sum(map(len, found.state.values())) <= 16 * 1024


async def test_an_inspection_is_one_question() -> None:
    async with FakeAgent() as agent:
        await agent.greet()
        asking = asyncio.create_task(agent.client.inspect())
        await agent.answer("inspect", **ANSWER)
        assert (await asking).boot_id == "b"


async def test_a_guest_that_answers_nonsense_loses_its_channel() -> None:
    async with FakeAgent() as agent:
        await agent.greet()
        asking = asyncio.create_task(agent.client.inspect())
        await agent.answer("inspect", **{**ANSWER, "state": 5})
        with pytest.raises(GuestLost, match="broke the channel's protocol"):
            await asking
        assert "broke" in (await agent.client.lost()).message


async def test_the_end_of_a_guest_is_told_at_once() -> None:
    async with FakeAgent() as agent:
        await agent.greet()
        ending = asyncio.create_task(agent.client.lost())
        await asyncio.sleep(0)
        assert not ending.done()
        agent.client.fail(GuestLost("the VM ended"))
        assert (await ending).message == "the VM ended"
