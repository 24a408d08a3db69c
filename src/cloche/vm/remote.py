"""Job roots and processes in a guest, spoken for by its agent.

What the guest says of them is checked here: a ProtocolError loses it the channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections import deque
from typing import TYPE_CHECKING

from cloche.errors import GuestError, GuestLost, GuestTimeout
from cloche.guest import protocol
from cloche.vm.guest import CollectedFile, ExecSpec, ExitStatus, TtySize
from cloche.vm.words import plain

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator, Sequence
    from types import TracebackType
    from typing import Self, TypeVar

    from cloche.vm.channel import AgentClient

    T = TypeVar("T")

_FAILURE = b"cloche-failure: "
_MAX_FAILURE = 4096
_HELD_BACK = 2 * _MAX_FAILURE
_SMALL = 256 * 1024
"""Bytes of an archive that go by the channel even where there is an inbox: it answers sooner."""
_MAX_CODE = 255
_MAX_SIGNAL = 64
_HASH = re.compile(r"[0-9a-f]{64}|")


class RemoteRoot:
    """A JobRoot in the guest."""

    def __init__(self, client: AgentClient, name: str) -> None:
        self._client = client
        self.name = name
        self._closed = False

    async def __aenter__(self) -> Self:
        """The root is ready."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process of the job and drop its root; who was cancelled does not wait long for that."""
        self._closed = True
        if kind is None or not issubclass(kind, asyncio.CancelledError):
            await self._client.close_job(self.name)
            return
        with contextlib.suppress(GuestError):
            await self._client.close_job(self.name, self._client.deadlines.haste)

    async def exec(self, spec: ExecSpec) -> RemoteProcess:
        """See JobRoot."""
        header: protocol.Header = {
            "argv": list(spec.argv),
            "env": dict(spec.env),
            "cwd": spec.cwd,
            "user": spec.user,
            "stdin": spec.stdin,
            "tty": [spec.tty.rows, spec.tty.columns] if spec.tty else None,
            "files": [[path, len(content)] for path, content in spec.files.items()],
            "collect": list(spec.collect),
        }
        return self._start(header, b"".join(spec.files.values()), spec.collect)

    def _start(
        self, header: protocol.Header, payload: bytes = b"", collect: Sequence[str] = ()
    ) -> RemoteProcess:
        if self._closed:
            raise GuestError("the job's root has been closed")
        return self._client.start({"job": self.name, **header}, payload, collect)

    async def put(self, path: str, archive: AsyncIterator[bytes], *, user: str | None = None) -> None:
        """See JobRoot."""
        request: protocol.Header = {"builtin": "untar", "path": path, "user": user}
        what = f"put files at {path}"
        inbox = self._client.inbox
        archive, large = await _peek(archive, _SMALL if inbox else None)
        if inbox is None or not large:
            await self._put_by_channel(request, archive, what)
            return
        async with inbox.holding(archive) as size:
            with self._builtin({**request, "inbox": size}) as process:
                await self._result(process, what)

    async def _put_by_channel(
        self, request: protocol.Header, archive: AsyncIterator[bytes], what: str
    ) -> None:
        with self._builtin({**request, "stdin": True}) as process:
            async for part in archive:
                if process.ended:
                    break  # it failed
                await self._patiently(process.write(part), what)
            await process.close_stdin()
            await self._result(process, what)

    async def get(self, path: str) -> AsyncGenerator[bytes, None]:
        """See JobRoot."""
        what = f"read {path}"
        with self._builtin({"builtin": "tar", "path": path}) as process:
            held = b""  # why it failed comes last, as data
            output = process.output()
            while part := await self._patiently(anext(output, b""), what):
                held += part
                if len(held) > _HELD_BACK:
                    yield held[:-_HELD_BACK]
                    held = held[-_HELD_BACK:]
            await self._succeeded(process, held, what)
            yield held

    async def hash_files(self, base: str, patterns: Sequence[str]) -> str:
        """See JobRoot."""
        what = f"hash files below {base}"
        request: protocol.Header = {"builtin": "hash", "path": base, "patterns": list(patterns)}
        with self._builtin(request) as process:
            answer = (await self._result(process, what)).decode("ascii", "replace")
        if not _HASH.fullmatch(answer):
            raise GuestError(f"the guest could not {what}: it answered {answer[:100]!r}")
        return answer

    @contextlib.contextmanager
    def _builtin(self, request: protocol.Header) -> Iterator[RemoteProcess]:
        process = self._start(request)
        try:
            yield process
        finally:
            process.abandon()

    async def _patiently(self, work: Awaitable[T], what: str) -> T:
        """A step that a guest in order takes soon, however much it has to do in all."""
        deadline = self._client.deadlines.progress
        try:
            async with asyncio.timeout(deadline):
                return await work
        except TimeoutError:
            raise GuestTimeout(f"the guest could not {what}: nothing happened for {deadline:g} s") from None

    async def _result(self, process: RemoteProcess, what: str) -> bytes:
        answer = b""
        output = process.output()
        while part := await self._patiently(anext(output, b""), what):
            answer = (answer + part)[:_HELD_BACK]
        await self._succeeded(process, answer, what)
        return answer

    async def _succeeded(self, process: RemoteProcess, said: bytes, what: str) -> None:
        status = await self._patiently(process.wait(), what)
        if status.code != 0:
            text = plain(said.rpartition(_FAILURE)[2].decode(errors="replace"))
            raise GuestError(
                f"the guest could not {what}: {status.error or text or f'exit code {status.code}'}"
            )


async def _peek(archive: AsyncIterator[bytes], limit: int | None) -> tuple[AsyncIterator[bytes], bool]:
    """The same archive, and whether it is larger than ``limit`` bytes; without a limit nothing is looked at."""
    if limit is None:
        return archive, False
    head: list[bytes] = []
    held = 0
    async for part in archive:
        head.append(part)
        held += len(part)
        if held > limit:
            break

    async def whole() -> AsyncIterator[bytes]:
        for part in head:
            yield part
        async for part in archive:
            yield part

    return whole(), held > limit


class RemoteProcess:
    """A Process in the guest. Never holds more output than the credit it granted."""

    def __init__(self, client: AgentClient, number: int, job: str, collect: Sequence[str] = ()) -> None:
        self.number = number
        self.job = job
        self._client = client
        self._collect = tuple(collect)
        self._chunks: deque[bytes] = deque()
        self._granted = protocol.WINDOW
        self._consumed = 0
        self._news = asyncio.Event()
        self._credit = protocol.WINDOW
        self._room = asyncio.Event()
        self._files: dict[str, CollectedFile] = {}
        self._status: ExitStatus | None = None
        self._lost: GuestError | None = None
        self._over = asyncio.Event()
        self._abandoned = False

    @property
    def ended(self) -> bool:
        """Whether the program has ended, or the guest."""
        return self._over.is_set()

    # --- from the wire

    def take(self, header: protocol.Header, payload: bytes) -> bool:
        """A frame of this stream; true when it was the last. ProtocolError if it is not entitled to it."""
        kind = header["t"]
        if kind == "data":
            self._take_output(payload)
        elif kind == "credit":
            self._credit += protocol.whole(header, "n")
            if self._credit > protocol.WINDOW:
                raise protocol.ProtocolError("more credit than was used")
            self._room.set()
        elif kind == "file":
            cut = header.get("cut") is True
            self._take_file(protocol.whole(header, "file"), CollectedFile(payload, truncated=cut))
        elif kind == "exit":
            self._end(header)
        else:
            raise protocol.ProtocolError(f"there is no message {str(kind)[:100]!r}")
        return self._status is not None

    def _take_output(self, payload: bytes) -> None:
        self._granted -= len(payload)
        if self._granted < 0 or not 0 < len(payload) <= protocol.CHUNK:
            raise protocol.ProtocolError("more output than was granted, or none")
        if self._abandoned:
            self._consume(len(payload))
        else:
            self._chunks.append(payload)
            self._news.set()

    def _take_file(self, index: int, file: CollectedFile) -> None:
        if index >= len(self._collect) or self._collect[index] in self._files:
            raise protocol.ProtocolError("a file that nobody asked for")
        self._files[self._collect[index]] = file

    def _end(self, header: protocol.Header) -> None:
        empty = header.get("empty", [])
        if not isinstance(empty, list):
            raise protocol.ProtocolError("empty is not a list")
        for index in empty:
            self._take_file(protocol.whole({"file": index}, "file"), CollectedFile(b""))
        signalled = header.get("signal") is not None
        error = header.get("error")
        self._status = ExitStatus(
            code=protocol.whole(header, "code", high=_MAX_CODE),
            signal=protocol.whole(header, "signal", 1, _MAX_SIGNAL) if signalled else None,
            error=None if error is None else plain(str(error)),
            oom_kills=protocol.whole(header, "oom", default=0),
            boot_id=protocol.text(header, "boot_id", default=""),
            user_time=protocol.number(header, "utime", 0.0),
            system_time=protocol.number(header, "stime", 0.0),
            max_rss=protocol.whole(header, "rss", default=0),
            collected=self._files,
        )
        self._tell_all()

    def lose(self, error: GuestError) -> None:
        """The guest is gone, or the root."""
        if self._status is None:
            self._lost = error
            self._tell_all()

    def _tell_all(self) -> None:
        for event in (self._news, self._room, self._over):
            event.set()

    def abandon(self) -> None:
        """Nobody is interested any more: end the program, and let go of what it still says."""
        if self.ended:
            return
        self._abandoned = True
        with contextlib.suppress(GuestLost):
            self._consume(sum(map(len, self._chunks)))
            self._chunks.clear()
            self._tell({"t": "signal", "n": int(signal.SIGKILL)})

    # --- the Process port

    async def output(self) -> AsyncIterator[bytes]:
        """See Process."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._consume(len(chunk))
                yield chunk
            if self.ended:
                return
            self._news.clear()
            await self._news.wait()

    def _consume(self, amount: int) -> None:
        self._consumed += amount
        if self._consumed < protocol.WINDOW // 2 or self.ended:
            return
        self._client.send({"t": "credit", "s": self.number, "n": self._consumed})
        self._granted += self._consumed
        self._consumed = 0

    async def wait(self) -> ExitStatus:
        """See Process."""
        await self._over.wait()
        if self._status is None:
            raise self._loss()
        return self._status

    def _loss(self) -> GuestError:
        assert self._lost is not None, "either ended or lost"  # noqa: S101 - a programming error, not input
        return type(self._lost)(self._lost.message, hint=self._lost.hint)

    async def write(self, data: bytes) -> None:
        """See Process."""
        view = memoryview(data)
        while view:
            while self._credit <= 0 and not self.ended:
                self._room.clear()
                await self._room.wait()
            if self._status is not None:
                return
            if self._lost is not None:
                raise self._loss()
            part = view[: min(self._credit, protocol.CHUNK)]
            self._client.send({"t": "data", "s": self.number}, bytes(part))
            self._credit -= len(part)
            view = view[len(part) :]

    async def close_stdin(self) -> None:
        """See Process."""
        self._tell({"t": "eof"})

    async def signal(self, number: int) -> None:
        """See Process."""
        self._tell({"t": "signal", "n": number})

    async def resize(self, size: TtySize) -> None:
        """See Process."""
        self._tell({"t": "resize", "rows": size.rows, "columns": size.columns})

    def _tell(self, header: protocol.Header) -> None:
        if self._status is None:
            self._client.send({**header, "s": self.number})
