from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloche.errors import GuestError, GuestLost, GuestTimeout
from cloche.guest import protocol
from cloche.vm.guest import ExecSpec, JobRootSpec

from .fake_agent import HELLO, PATIENCE, SHORT, FakeAgent

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloche.vm.remote import RemoteProcess, RemoteRoot


async def open_root(agent: FakeAgent) -> RemoteRoot:
    await agent.greet()
    opening = asyncio.create_task(
        agent.client.open_job(JobRootSpec("job", hostname="lily", memory=5, pids=7))
    )
    await agent.answer("job.open")
    return await opening


async def start(agent: FakeAgent, **fields: object) -> tuple[RemoteProcess, int]:
    """A program and the number of its stream."""
    root = await open_root(agent)
    process = await root.exec(ExecSpec(["true"], **fields))  # type: ignore[arg-type] # by name, as given
    header, _ = await agent.hear()
    assert header["t"] == "exec"
    return process, protocol.whole(header, "s")


# A guest in order


async def test_the_handshake() -> None:
    async with FakeAgent() as agent:
        connecting = asyncio.create_task(agent.client.connect())
        header, _ = await agent.answer("hello", **HELLO)
        assert header["v"] == protocol.VERSION
        hello = await connecting
        assert {key: hello[key] for key in HELLO} == HELLO


async def test_adoption_tells_the_guest_who_it_is_and_us_what_it_is() -> None:
    async with FakeAgent() as agent:
        await agent.greet()
        adopting = asyncio.create_task(
            agent.client.adopt(HELLO, hostname="vm-1", machine_id="abc", entropy=b"seed", env={"A": "1"})
        )
        header, payload = await agent.answer("adopt", boot_id="boot")
        assert (header["hostname"], header["machine_id"], payload) == ("vm-1", "abc", b"seed")
        info = await adopting
        assert info == agent.client.info
        assert (info.boot_id, info.kernel, info.hostname, info.cpus, info.memory) == (
            "boot",
            "6.1",
            "vm-1",
            2,
            1024,
        )
        assert info.env == {"A": "1"}


async def test_nothing_is_known_of_a_guest_before_its_adoption() -> None:
    async with FakeAgent() as agent:
        with pytest.raises(GuestError, match="adopted"):
            _ = agent.client.info


async def test_opening_a_root_passes_its_limits_on() -> None:
    async with FakeAgent() as agent:
        await agent.greet()
        opening = asyncio.create_task(
            agent.client.open_job(JobRootSpec("job", hostname="lily", memory=5, pids=7))
        )
        header, _ = await agent.answer("job.open")
        assert (header["hostname"], header["memory"], header["pids"]) == ("lily", 5, 7)
        await opening


async def test_a_ping_is_a_round_trip() -> None:
    async with FakeAgent() as agent:
        await agent.greet()
        pinging = asyncio.create_task(agent.client.ping())
        await agent.answer("ping")
        assert 0 <= await pinging < PATIENCE


async def test_a_refusal_is_an_error_with_the_guests_words_and_the_channel_lives() -> None:
    async with FakeAgent() as agent:
        await agent.greet()
        opening = asyncio.create_task(agent.client.open_job(JobRootSpec("job")))
        await agent.answer("job.open", error="no space left")
        with pytest.raises(GuestError, match="no space left") as caught:
            await opening
        assert not isinstance(caught.value, GuestLost)
        pinging = asyncio.create_task(agent.client.ping())
        await agent.answer("ping")
        await pinging


async def test_an_endless_refusal_is_cut() -> None:
    async with FakeAgent() as agent:
        await agent.greet()
        pinging = asyncio.create_task(agent.client.ping())
        await agent.answer("ping", error="x" * 100_000)
        with pytest.raises(GuestError) as caught:
            await pinging
        assert len(str(caught.value)) < 5000


async def test_what_is_too_large_to_send_is_an_error_and_the_channel_lives() -> None:
    async with FakeAgent() as agent:
        root = await open_root(agent)
        with pytest.raises(GuestError, match="too large"):
            await root.exec(ExecSpec(["true"], files={"/a": bytes(protocol.MAX_PAYLOAD + 1)}))
        with pytest.raises(GuestError, match="too large"):
            await root.exec(ExecSpec(["x" * protocol.MAX_HEADER]))
        process = await root.exec(ExecSpec(["true"]))
        header, _ = await agent.hear()
        agent.say({"t": "exit", "s": header["s"], "code": 0})
        assert (await process.wait()).code == 0


async def test_a_client_at_rest_asks_nothing_until_the_next_program() -> None:
    async with FakeAgent(SHORT) as agent:
        root = await open_root(agent)
        process = await root.exec(ExecSpec(["true"]))
        header, _ = await agent.hear()
        await agent.answer("ping")
        agent.say({"t": "exit", "s": header["s"], "code": 0})
        await process.wait()

        agent.client.rest()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(agent.hear(), 4 * SHORT.beat)

        await root.exec(ExecSpec(["true"]))
        await agent.hear()
        await agent.answer("ping")


async def test_a_late_answer_is_dropped() -> None:
    async with FakeAgent(SHORT) as agent:
        await agent.greet()
        pinging = asyncio.create_task(agent.client.ping())
        header, _ = await agent.hear()
        with pytest.raises(GuestTimeout, match=r"'ping' within 0.2 s"):
            await pinging
        agent.say({"t": "reply", "r": header["r"]})
        pinging = asyncio.create_task(agent.client.ping())
        await agent.answer("ping")
        await pinging


async def test_a_cancelled_request_is_forgotten() -> None:
    async with FakeAgent() as agent:
        await agent.greet()
        pinging = asyncio.create_task(agent.client.ping())
        header, _ = await agent.hear()
        pinging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pinging
        agent.say({"t": "reply", "r": header["r"]})
        pinging = asyncio.create_task(agent.client.ping())
        await agent.answer("ping")
        await pinging


# A guest that says nothing


async def test_a_guest_that_never_answers_is_a_timeout() -> None:
    async with FakeAgent(SHORT) as agent:
        with pytest.raises(GuestTimeout, match="'hello'"):
            await agent.client.connect()


async def test_the_handshake_has_a_deadline_of_its_own() -> None:
    async with FakeAgent() as agent:
        with pytest.raises(GuestTimeout, match=r"within 0.05 s"):
            await agent.client.connect(0.05)
        await agent.hear()
        await agent.greet()  # it may be tried again


async def test_a_guest_that_hangs_while_a_program_runs_is_lost() -> None:
    async with FakeAgent(SHORT) as agent:
        process, _ = await start(agent)
        with pytest.raises(GuestTimeout, match="hangs"):
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        assert await agent.is_cut_off()
        with pytest.raises(GuestLost, match="hangs"):
            await agent.client.ping()


async def test_a_guest_that_refuses_a_look_at_it_is_lost() -> None:
    async with FakeAgent(SHORT) as agent:
        process, _ = await start(agent)
        await agent.answer("ping", error="not now")
        with pytest.raises(GuestError, match="not now"):
            await process.wait()


async def test_a_guest_that_answers_in_time_may_run_for_long() -> None:
    async with FakeAgent(SHORT) as agent:
        process, stream = await start(agent)
        for _ in range(4):
            await agent.answer("ping")
        agent.say({"t": "exit", "s": stream, "code": 0})
        assert (await process.wait()).code == 0


async def test_closing_a_root_in_a_guest_that_hangs_has_a_deadline() -> None:
    async with FakeAgent(SHORT) as agent:
        root = await open_root(agent)
        process = await root.exec(ExecSpec(["true"]))
        with pytest.raises(GuestTimeout, match=r"job\.close"):
            async with root:
                pass
        with pytest.raises(GuestLost, match="closed"):
            await process.wait()


# A guest that goes


async def test_a_closed_channel_reaches_everybody_who_waits() -> None:
    async with FakeAgent() as agent:
        process, _ = await start(agent, stdin=True)

        async def read() -> bytes:
            return b"".join([chunk async for chunk in process.output()])

        async def write_much() -> None:
            await process.write(bytes(2 * protocol.WINDOW))

        waiting = [asyncio.create_task(c) for c in (process.wait(), write_much(), agent.client.ping())]
        reading = asyncio.create_task(read())
        await agent.hear()
        await agent.hang_up()
        async with asyncio.timeout(PATIENCE):
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert await reading == b""
        assert [type(result) for result in results] == [GuestLost] * 3
        assert len({id(result) for result in results}) == 3
        with pytest.raises(GuestLost):
            await process.write(b"x")
        with pytest.raises(GuestLost):
            await process.signal(15)
        with pytest.raises(GuestLost):
            await agent.client.open_job(JobRootSpec("late"))


async def test_what_arrived_before_the_end_can_still_be_read() -> None:
    async with FakeAgent() as agent:
        process, stream = await start(agent)
        agent.say({"t": "data", "s": stream}, b"last words")
        await agent.hang_up()
        assert b"".join([chunk async for chunk in process.output()]) == b"last words"
        with pytest.raises(GuestLost):
            await process.wait()


async def test_a_frame_that_ends_half_way_is_the_end() -> None:
    async with FakeAgent() as agent:
        process, stream = await start(agent)
        agent.say_bytes(protocol.encode({"t": "exit", "s": stream, "code": 0})[:-3])
        await agent.hang_up()
        with pytest.raises(GuestLost):
            await process.wait()


async def test_closing_a_root_of_a_guest_that_is_gone_is_no_error() -> None:
    async with FakeAgent() as agent:
        root = await open_root(agent)
        await agent.hang_up()
        async with asyncio.timeout(PATIENCE), root:
            pass


async def test_closing_the_client_again_or_without_a_connection_is_fine() -> None:
    async with FakeAgent() as agent:
        await agent.greet()
        await agent.client.close()
        await agent.client.close()
    async with FakeAgent() as agent:
        await agent.client.close()


async def test_a_provider_that_knows_better_says_why_the_guest_is_lost() -> None:
    async with FakeAgent() as agent:
        process, _ = await start(agent)
        agent.client.fail(GuestLost("the VM ended", hint="look at its console"))
        with pytest.raises(GuestLost, match="the VM ended") as caught:
            await process.wait()
        assert caught.value.hint == "look at its console"


# A guest that breaks the rules


Wicked: TypeAlias = "Callable[[FakeAgent, int], None]"


def frame(header: protocol.Header, payload: bytes = b"") -> Wicked:
    return lambda agent, stream: agent.say({"s": stream, **header}, payload)


def raw(data: bytes) -> Wicked:
    return lambda agent, _stream: agent.say_bytes(data)


def more_than_granted(agent: FakeAgent, stream: int) -> None:
    for _ in range(protocol.WINDOW // protocol.CHUNK + 1):
        agent.say({"t": "data", "s": stream}, bytes(protocol.CHUNK))


def the_same_file_twice(agent: FakeAgent, stream: int) -> None:
    for _ in range(2):
        agent.say({"t": "file", "s": stream, "file": 0}, b"x")


BROKEN = {
    "noise": raw(b"\xff" * 100),
    "huge header": raw(struct.pack("!II", protocol.MAX_GUEST_HEADER + 1, 0)),
    "huge payload": raw(struct.pack("!II", 10, protocol.MAX_COLLECTED + 1)),
    "no object": raw(struct.pack("!II", 2, 0) + b"[]"),
    "deep header": raw(struct.pack("!II", 100_000, 0) + b"[" * 100_000),
    "no stream": lambda agent, _stream: agent.say({"t": "data"}, b"x"),
    "stream of a wrong type": frame({"t": "data", "s": "1"}, b"x"),
    "stream that is true": frame({"t": "data", "s": True}, b"x"),
    "stream nobody started": frame({"t": "data", "s": 1000}, b"x"),
    "answer to nobody": frame({"t": "reply", "r": 1000}),
    "answer without a number": frame({"t": "reply"}),
    "unknown message": frame({"t": "surprise"}),
    "request from the guest": frame({"t": "exec"}),
    "more output than granted": more_than_granted,
    "output of nothing": frame({"t": "data"}),
    "too long a chunk": frame({"t": "data"}, bytes(protocol.CHUNK + 1)),
    "credit nobody used": frame({"t": "credit", "n": 1}),
    "credit of a wrong type": frame({"t": "credit", "n": "1"}),
    "negative credit": frame({"t": "credit", "n": -1}),
    "credit without an amount": frame({"t": "credit"}),
    "file nobody asked for": frame({"t": "file", "file": 1}, b"x"),
    "file of a wrong type": frame({"t": "file", "file": "/etc/passwd"}, b"x"),
    "file twice": the_same_file_twice,
    "empty file nobody asked for": frame({"t": "exit", "code": 0, "empty": [1]}),
    "empty of a wrong type": frame({"t": "exit", "code": 0, "empty": {"0": 0}}),
    "exit without a code": frame({"t": "exit"}),
    "code of a wrong type": frame({"t": "exit", "code": "0"}),
    "code out of range": frame({"t": "exit", "code": 256}),
    "code that is a fraction": frame({"t": "exit", "code": 0.5}),
    "signal out of range": frame({"t": "exit", "code": 0, "signal": 65}),
    "negative oom kills": frame({"t": "exit", "code": 0, "oom": -1}),
    "boot id of a wrong type": frame({"t": "exit", "code": 0, "boot_id": 1}),
    "endless boot id": frame({"t": "exit", "code": 0, "boot_id": "x" * 5000}),
    "time that is no number": frame({"t": "exit", "code": 0, "utime": float("nan")}),
    "infinite time": frame({"t": "exit", "code": 0, "stime": float("inf")}),
    "endless number": raw(struct.pack("!II", 10_010, 0) + b'{"t":"x"' + b',"n":' + b"9" * 9_996 + b"}"),
}


@pytest.mark.parametrize("wicked", BROKEN.values(), ids=BROKEN.keys())
async def test_a_guest_that_breaks_the_rules_loses_its_channel(
    wicked: Callable[[FakeAgent, int], None],
) -> None:
    async with FakeAgent() as agent:
        process, stream = await start(agent, collect=["/asked/for"])
        wicked(agent, stream)
        with pytest.raises(GuestLost, match="protocol"):
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        assert await agent.is_cut_off()


@pytest.mark.parametrize(
    ("hello", "answer"),
    [
        ({**HELLO, "cpus": 0}, {"boot_id": "b"}),
        ({**HELLO, "cpus": "many"}, {"boot_id": "b"}),
        ({**HELLO, "memory": None}, {"boot_id": "b"}),
        ({**HELLO, "kernel": ["6.1"]}, {"boot_id": "b"}),
        ({**HELLO, "kernel": "x" * 1000}, {"boot_id": "b"}),
        (HELLO, {}),
        (HELLO, {"boot_id": 7}),
    ],
    ids=str,
)
async def test_a_guest_that_describes_itself_wrongly_is_lost(
    hello: protocol.Header, answer: protocol.Header
) -> None:
    async with FakeAgent() as agent:
        await agent.greet()
        adopting = asyncio.create_task(agent.client.adopt(hello, hostname="h", machine_id="m", entropy=b""))
        await agent.answer("adopt", **answer)
        with pytest.raises(GuestLost, match="protocol"):
            await adopting
        assert await agent.is_cut_off()


async def test_messages_of_a_stream_that_is_over_are_dropped() -> None:
    async with FakeAgent() as agent:
        process, stream = await start(agent)
        agent.say({"t": "exit", "s": stream, "code": 0})
        await process.wait()
        for _ in range(100):
            agent.say({"t": "data", "s": stream}, bytes(protocol.CHUNK))
        pinging = asyncio.create_task(agent.client.ping())
        await agent.answer("ping")
        await pinging
        assert [chunk async for chunk in process.output()] == []


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)
headers = st.fixed_dictionaries(
    {"t": st.sampled_from(["reply", "data", "credit", "file", "exit", "exec"])},
    optional={
        "s": st.integers(1, 6) | anything,
        "r": st.integers(1, 6) | anything,
        "n": st.integers(0, 3) | anything,
        "code": st.integers(0, 3) | anything,
        "file": st.integers(0, 1) | anything,
        "error": anything,
        "signal": anything,
        "empty": anything,
        "boot_id": anything,
        "utime": anything,
    },
)


@settings(max_examples=2 * settings().max_examples, deadline=None)
@given(st.lists(st.tuples(headers, st.binary(max_size=5)), max_size=10), st.binary(max_size=30))
def test_whatever_a_guest_says_everybody_gets_an_end(
    said: list[tuple[protocol.Header, bytes]], tail: bytes
) -> None:
    async def scenario() -> None:
        async with FakeAgent() as agent:
            process, _ = await start(agent, stdin=True, collect=["/a"])
            waiting = [asyncio.create_task(c) for c in (process.wait(), agent.client.ping(), drain(process))]
            await agent.hear()
            for header, payload in said:
                agent.say(dict(header), payload)
            agent.say_bytes(tail)
            await agent.hang_up()
            async with asyncio.timeout(PATIENCE):
                results = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(r, GuestError) or not isinstance(r, BaseException) for r in results)

    asyncio.run(scenario())


async def drain(process: RemoteProcess) -> None:
    async for chunk in process.output():
        assert 0 < len(chunk) <= protocol.CHUNK


async def test_noise_is_not_kept() -> None:
    """A guest that floods its channel before anybody listens to a stream grows nothing."""
    async with FakeAgent() as agent:
        _, stream = await start(agent)
        agent.say({"t": "exit", "s": stream, "code": 0})
        junk = protocol.encode({"t": "data", "s": stream, "x": "y" * 1000}, bytes(1000))
        for _ in range(200):
            agent.say_bytes(junk * 10)
        pinging = asyncio.create_task(agent.client.ping())
        await agent.answer("ping")
        await pinging
        assert agent.client._decoder.pending == 0
        assert agent.client._streams == {}
        assert agent.client._requests == {}
