from __future__ import annotations

import asyncio
import hashlib
import signal
from typing import TYPE_CHECKING, Self

import pytest

from cloche.errors import GuestError, GuestLost, GuestTimeout
from cloche.guest import protocol
from cloche.vm.channel import Deadlines
from cloche.vm.guest import CollectedFile, ExecSpec, JobRootSpec, TtySize
from cloche.vm.inbox import Inbox

from .fake_agent import LONG, PATIENCE, SHORT, FakeAgent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from cloche.vm.remote import RemoteProcess, RemoteRoot

FAILURE = b"cloche-failure: "
DIGEST = hashlib.sha256(b"").hexdigest()


class Job(FakeAgent):
    """A scripted agent with one job root open."""

    root: RemoteRoot

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await self.greet()
        opening = asyncio.create_task(self.client.open_job(JobRootSpec("job")))
        await self.answer("job.open")
        self.root = await opening
        return self

    async def start(self, **fields: object) -> tuple[RemoteProcess, int]:
        process = await self.root.exec(ExecSpec(["true"], **fields))  # type: ignore[arg-type] # by name, as given
        return process, await self.hear_start()

    async def hear_start(self, builtin: str | None = None) -> int:
        """Hear a program being started: its stream's number."""
        header, _ = await self.hear()
        assert (header["t"], header.get("builtin")) == ("exec", builtin)
        return protocol.whole(header, "s")

    def exit(self, stream: int, code: int = 0, **fields: object) -> None:
        self.say({"t": "exit", "s": stream, "code": code, **fields})

    def data(self, stream: int, payload: bytes) -> None:
        self.say({"t": "data", "s": stream}, payload)


async def everything(process: RemoteProcess) -> bytes:
    return b"".join([chunk async for chunk in process.output()])


async def parts(*content: bytes) -> AsyncIterator[bytes]:
    for part in content:
        yield part


async def settle() -> None:
    """Let every task go as far as it can without anything new from outside."""
    for _ in range(20):
        await asyncio.sleep(0)


# What is sent


async def test_a_program_is_described_completely() -> None:
    async with Job() as job:
        spec = ExecSpec(
            ["echo", "hi"], {"A": "1"}, "/work", "runner", stdin=True, tty=TtySize(24, 80),
            files={"/a": b"one", "/b": b"two2"}, collect=["/c"],
        )  # fmt: skip
        await job.root.exec(spec)
        header, payload = await job.hear()
        del header["s"], header["job"]
        assert header == {
            "t": "exec", "argv": ["echo", "hi"], "env": {"A": "1"}, "cwd": "/work", "user": "runner",
            "stdin": True, "tty": [24, 80], "files": [["/a", 3], ["/b", 4]], "collect": ["/c"],
        }  # fmt: skip
        assert payload == b"onetwo2"


async def test_signals_sizes_and_the_end_of_input() -> None:
    async with Job() as job:
        process, stream = await job.start(stdin=True)
        await process.signal(15)
        await process.resize(TtySize(50, 132))
        await process.close_stdin()
        assert [(await job.hear())[0] for _ in range(3)] == [
            {"t": "signal", "s": stream, "n": 15},
            {"t": "resize", "s": stream, "rows": 50, "columns": 132},
            {"t": "eof", "s": stream},
        ]


async def test_nothing_is_said_to_a_program_that_has_ended() -> None:
    async with Job() as job:
        process, stream = await job.start(stdin=True)
        job.exit(stream)
        await process.wait()
        await process.signal(15)
        await process.resize(TtySize(1, 1))
        await process.write(b"late")
        await process.close_stdin()
        pinging = asyncio.create_task(job.client.ping())
        await job.answer("ping")
        await pinging


# How programs end


async def test_the_exit_in_full() -> None:
    async with Job() as job:
        process, stream = await job.start(collect=["/out", "/empty", "/missing"])
        job.say({"t": "file", "s": stream, "file": 0, "cut": True}, b"content")
        job.exit(
            stream, 137, signal=9, oom=2, boot_id="boot", utime=1.5, stime=0.5, rss=4096, empty=[1], error=None
        )  # fmt: skip
        status = await process.wait()
        assert (status.code, status.signal, status.error, status.oom_kills) == (137, 9, None, 2)
        assert (status.boot_id, status.user_time, status.system_time, status.max_rss) == (
            "boot",
            1.5,
            0.5,
            4096,
        )
        assert status.collected == {
            "/out": CollectedFile(b"content", truncated=True),
            "/empty": CollectedFile(b""),
        }


async def test_an_error_of_the_start_has_a_limit() -> None:
    async with Job() as job:
        process, stream = await job.start()
        job.exit(stream, 127, error="x" * 100_000)
        status = await process.wait()
        assert status.error is not None
        assert len(status.error) < 5000


async def test_readers_of_output_and_waiters_for_the_end_do_not_starve_each_other() -> None:
    async with Job() as job:
        process, stream = await job.start()
        waiters = [asyncio.create_task(process.wait()) for _ in range(2)]
        reader = asyncio.create_task(everything(process))
        for number in range(50):
            job.data(stream, b"%d " % number)
            await settle()
        job.exit(stream)
        async with asyncio.timeout(PATIENCE):
            assert [(await waiter).code for waiter in waiters] == [0, 0]
            assert (await reader).split() == [b"%d" % number for number in range(50)]


async def test_two_readers_share_the_output_and_both_end() -> None:
    async with Job() as job:
        process, stream = await job.start()
        readers = [asyncio.create_task(everything(process)) for _ in range(2)]
        job.data(stream, b"once")
        job.exit(stream)
        async with asyncio.timeout(PATIENCE):
            assert b"".join(await asyncio.gather(*readers)) == b"once"


async def test_closing_the_root_ends_whoever_still_waits() -> None:
    async with Job() as job:
        process, _ = await job.start(stdin=True)
        waiting = asyncio.create_task(process.wait())
        writing = asyncio.create_task(process.write(bytes(2 * protocol.WINDOW)))

        async def close() -> None:
            async with job.root:
                pass

        closing = asyncio.create_task(close())
        while (frame := await job.hear())[0]["t"] != "job.close":
            pass
        job.say({"t": "reply", "r": frame[0]["r"]})
        await closing
        for task in (waiting, writing):
            with pytest.raises(GuestLost, match="root has been closed"):
                await task
        with pytest.raises(GuestError, match="closed"):
            await job.root.exec(ExecSpec(["true"]))


async def test_closing_one_root_leaves_the_programs_of_another_alone() -> None:
    async with Job() as job:
        process, stream = await job.start()
        opening = asyncio.create_task(job.client.open_job(JobRootSpec("other")))
        await job.answer("job.open")
        closing = asyncio.create_task((await opening).__aexit__(None, None, None))
        await job.answer("job.close")
        await closing
        job.exit(stream)
        assert (await process.wait()).code == 0


# Flow control


async def test_output_is_credited_as_it_is_read() -> None:
    async with Job() as job:
        process, stream = await job.start()
        for _ in range(protocol.WINDOW // protocol.CHUNK):
            job.data(stream, bytes(protocol.CHUNK))
        output = process.output()
        taken = 0
        while taken < protocol.WINDOW // 2:
            taken += len(await anext(output))
        header, _ = await job.hear()
        assert header == {"t": "credit", "s": stream, "n": protocol.WINDOW // 2}


async def test_output_that_nobody_reads_is_not_credited() -> None:
    async with Job() as job:
        process, stream = await job.start()
        for _ in range(protocol.WINDOW // protocol.CHUNK):
            job.data(stream, bytes(protocol.CHUNK))
        pinging = asyncio.create_task(job.client.ping())
        assert (await job.answer("ping"))[0]["t"] == "ping"
        await pinging
        job.exit(stream)
        assert len(await everything(process)) == protocol.WINDOW


async def test_input_waits_for_credit() -> None:
    async with Job() as job:
        process, stream = await job.start(stdin=True)
        data = bytes(range(256)) * (2 * protocol.WINDOW // 256)
        writing = asyncio.create_task(process.write(data))
        received = b""
        while len(received) < protocol.WINDOW:
            received += (await job.hear())[1]
        await settle()
        assert (len(received), writing.done()) == (protocol.WINDOW, False)
        for _ in range(2):
            job.say({"t": "credit", "s": stream, "n": protocol.WINDOW // 2})
        while len(received) < len(data):
            frame = await job.hear()
            assert len(frame[1]) <= protocol.CHUNK
            received += frame[1]
        await writing
        assert received == data


async def test_a_writer_is_set_free_when_the_program_ends() -> None:
    async with Job() as job:
        process, stream = await job.start(stdin=True)
        writing = asyncio.create_task(process.write(bytes(2 * protocol.WINDOW)))
        job.exit(stream)
        async with asyncio.timeout(PATIENCE):
            await writing


# Trees of files


async def put(job: Job, code: int, output: bytes, *archive: bytes) -> list[tuple[protocol.Header, bytes]]:
    """Put an archive, with the builtin ending as told once it has seen the end of its input."""
    putting = asyncio.create_task(job.root.put("/work", parts(*archive), user="runner"))
    stream = await job.hear_start("untar")
    heard: list[tuple[protocol.Header, bytes]] = []
    while not heard or heard[-1][0]["t"] != "eof":
        heard.append(await job.hear())
    if output:
        job.data(stream, output)
    job.exit(stream, code)
    await putting
    return heard


async def test_an_archive_goes_in_as_it_is() -> None:
    async with Job() as job:
        heard = await put(job, 0, b"", b"one", b"two")
        assert b"".join(payload for _, payload in heard) == b"onetwo"


async def test_why_an_archive_could_not_be_unpacked_is_told() -> None:
    async with Job() as job:
        with pytest.raises(GuestError, match="put files at /work: big: No space left on device"):
            await put(job, 1, FAILURE + b"big: No space left on device", b"one")


async def test_the_source_is_left_alone_once_unpacking_has_failed() -> None:
    pulled = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal pulled
        while True:
            pulled += 1
            yield bytes(1000)
            await asyncio.sleep(0)

    async with Job() as job:
        putting = asyncio.create_task(job.root.put("/work", endless()))
        stream = await job.hear_start("untar")
        job.data(stream, FAILURE + b"read-only")
        job.exit(stream, 1)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(GuestError, match="read-only"):
                await putting
        before = pulled
        await settle()
        assert pulled == before


async def test_a_source_that_fails_ends_the_unpacking_in_the_guest() -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"part"
        raise TimeoutError("the source broke")

    async with Job() as job:
        putting = asyncio.create_task(job.root.put("/work", failing()))
        stream = await job.hear_start("untar")
        assert (await job.hear())[1] == b"part"
        assert (await job.hear())[0] == {"t": "signal", "s": stream, "n": signal.SIGKILL}
        with pytest.raises(TimeoutError, match="the source broke"):
            await putting


async def test_a_cancelled_put_ends_the_unpacking_in_the_guest() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"part"
        await asyncio.Event().wait()

    async with Job() as job:
        putting = asyncio.create_task(job.root.put("/work", endless()))
        stream = await job.hear_start("untar")
        await job.hear()
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        assert (await job.hear())[0] == {"t": "signal", "s": stream, "n": signal.SIGKILL}


async def test_what_an_abandoned_builtin_still_says_costs_nothing() -> None:
    async with Job() as job:
        getting = job.root.get("/work")
        first = asyncio.ensure_future(anext(getting))
        stream = await job.hear_start("tar")
        job.data(stream, bytes(protocol.CHUNK))
        await first
        await getting.aclose()
        assert (await job.hear())[0]["t"] == "signal"
        granted = protocol.WINDOW - protocol.CHUNK
        for _ in range(40):
            if granted < protocol.CHUNK:
                header, _ = await job.hear()
                granted += protocol.whole(header, "n")
            job.data(stream, bytes(protocol.CHUNK))
            granted -= protocol.CHUNK
        job.exit(stream, 137, signal=9)
        pinging = asyncio.create_task(job.client.ping())
        while (frame := await job.hear())[0]["t"] != "ping":
            pass
        job.say({"t": "reply", "r": frame[0]["r"]})
        await pinging
        assert job.client._streams == {}


async def get(job: Job, *chunks: bytes, code: int = 0) -> bytes:
    async def collect() -> bytes:
        return b"".join([part async for part in job.root.get("/work")])

    getting = asyncio.create_task(collect())
    stream = await job.hear_start("tar")
    for chunk in chunks:
        job.data(stream, chunk)
    job.exit(stream, code)
    return await getting


@pytest.mark.parametrize("sizes", [(), (1,), (5000, 5000), (60_000, 1, 60_000)])
async def test_an_archive_comes_out_as_it_is(sizes: tuple[int, ...]) -> None:
    chunks = [bytes([index + 1]) * size for index, size in enumerate(sizes)]
    async with Job() as job:
        assert await get(job, *chunks) == b"".join(chunks)


async def test_why_an_archive_could_not_be_packed_is_told_even_in_pieces() -> None:
    async with Job() as job:
        with pytest.raises(GuestError, match=r"read /work: /work: Permission denied$"):
            await get(job, bytes(60_000), FAILURE[:5], FAILURE[5:] + b"/work: Perm", b"ission denied", code=1)


async def test_a_hash_is_a_hash_or_nothing() -> None:
    async with Job() as job:
        for said in (DIGEST.encode(), b""):
            hashing = asyncio.create_task(job.root.hash_files("/ws", ["**"]))
            stream = await job.hear_start("hash")
            if said:
                job.data(stream, said)
            job.exit(stream)
            assert await hashing == said.decode()


@pytest.mark.parametrize("said", [b"abc", DIGEST.encode() + b"\n", DIGEST.encode().upper(), b"x" * 60_000])
async def test_a_hash_that_is_none_is_an_error(said: bytes) -> None:
    async with Job() as job:
        hashing = asyncio.create_task(job.root.hash_files("/ws", ["**"]))
        stream = await job.hear_start("hash")
        job.data(stream, said)
        job.exit(stream)
        with pytest.raises(GuestError, match="hash files below /ws"):
            await hashing


@pytest.mark.parametrize("builtin", ["untar", "untar full", "tar", "hash"])
async def test_a_builtin_that_gets_nowhere_has_a_deadline(builtin: str) -> None:
    """The guest answers every look at it, but nothing happens."""
    async with Job(SHORT) as job:
        work: dict[str, Callable[[], Awaitable[object]]] = {
            "untar": lambda: job.root.put("/work", parts(b"x")),
            "untar full": lambda: job.root.put("/work", parts(bytes(2 * protocol.WINDOW))),
            "tar": lambda: anext(job.root.get("/work")),
            "hash": lambda: job.root.hash_files("/work", ["**"]),
        }
        working = asyncio.ensure_future(work[builtin]())
        await job.hear_start(builtin.partition(" ")[0])
        while (frame := await job.hear())[0]["t"] != "signal":
            if frame[0]["t"] == "ping":
                job.say({"t": "reply", "r": frame[0]["r"]})
        with pytest.raises(GuestTimeout, match=r"nothing happened for 0\.3 s"):
            await working


# By way of the inbox


class Large(Job):
    """With an inbox of one MiB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("wb") as file:
            file.truncate(1 << 20)
        super().__init__(LONG, Inbox(path))


async def test_a_small_archive_goes_by_the_channel(tmp_path: Path) -> None:
    async with Large(tmp_path / "inbox") as job:
        heard = await put(job, 0, b"", b"one", b"two")
        assert b"".join(payload for _, payload in heard) == b"onetwo"


async def test_a_large_archive_goes_by_the_inbox(tmp_path: Path) -> None:
    async with Large(tmp_path / "inbox") as job:
        content = [bytes([number]) * 100_000 for number in range(6)]
        putting = asyncio.create_task(job.root.put("/work", parts(*content)))
        header, _ = await job.hear()
        assert (header["builtin"], header["inbox"], header.get("stdin")) == ("untar", 600_000, None)
        assert job.path.read_bytes()[:600_000] == b"".join(content)
        job.exit(protocol.whole(header, "s"))
        await putting
        assert (job.path.stat().st_size, job.path.stat().st_blocks) == (1 << 20, 0)


async def test_an_archive_that_is_larger_than_the_inbox_is_an_error(tmp_path: Path) -> None:
    async with Large(tmp_path / "inbox") as job:
        with pytest.raises(GuestError, match="do not fit"):
            await job.root.put("/work", parts(*[bytes(300_000)] * 4))
        assert job.path.stat().st_blocks == 0


async def test_large_archives_take_turns(tmp_path: Path) -> None:
    async with Large(tmp_path / "inbox") as job:
        putting = [asyncio.create_task(job.root.put("/work", parts(bytes(300_000)))) for _ in range(2)]
        first, _ = await job.hear()
        await settle()
        job.exit(protocol.whole(first, "s"))
        second, _ = await job.hear()
        assert second["inbox"] == 300_000
        job.exit(protocol.whole(second, "s"))
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*putting)


async def test_a_put_by_the_inbox_that_fails_frees_it(tmp_path: Path) -> None:
    async with Large(tmp_path / "inbox") as job:
        for _ in range(2):
            putting = asyncio.create_task(job.root.put("/work", parts(bytes(300_000))))
            header, _ = await job.hear()
            stream = protocol.whole(header, "s")
            job.data(stream, FAILURE + b"No space left on device")
            job.exit(stream, 1)
            with pytest.raises(GuestError, match="No space left"):
                await putting
            assert job.path.stat().st_blocks == 0


async def test_who_is_cancelled_does_not_wait_for_a_guest_that_is_slow_to_end_the_root() -> None:
    async with Job(Deadlines(request=PATIENCE, haste=0.05)) as job:

        async def hold() -> None:
            async with job.root:
                await asyncio.Event().wait()

        holding = asyncio.create_task(hold())
        await asyncio.sleep(0)
        holding.cancel()
        header, _ = await job.hear()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(holding, PATIENCE / 2)
        assert header["t"] == "job.close"
