"""The host's end of the guest channel: the agent's client over a connected socket.

Everything a frame says is untrusted. A guest that breaks the protocol (a frame over the limits, more data than
it was granted, an answer nobody asked for) loses its channel, and whatever waited on it gets GuestLost.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from typing import TYPE_CHECKING

from cloche.errors import GuestError, GuestLost, GuestTimeout
from cloche.guest import protocol
from cloche.vm.guest import (
    MAX_COLLECTED,
    CollectedFile,
    ExecSpec,
    ExitStatus,
    GuestInfo,
    JobRootSpec,
    TtySize,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Sequence
    from types import TracebackType
    from typing import Self

REQUEST_DEADLINE = 60.0
"""Seconds for the agent to answer a request; making a job root is the slowest, some 0.3 s under emulation."""
HEARTBEAT_INTERVAL = 10.0
HEARTBEAT_DEADLINE = 60.0
_MAX_FAILURE = 4096
_MAX_STREAM_FILES = 64


class AgentClient:
    """A Guest over one socket. Owns the socket; ``close`` gives it back."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._transport: asyncio.Transport | None = None
        self._decoder = protocol.Decoder()
        self._numbers = itertools.count(1)
        self._requests: dict[int, asyncio.Future[protocol.Header]] = {}
        self._streams: dict[int, RemoteProcess] = {}
        self._lost: GuestError | None = None
        self._info: GuestInfo | None = None
        self._heart: asyncio.Task[None] | None = None

    # --- life

    async def connect(self, deadline: float = REQUEST_DEADLINE) -> protocol.Header:
        """Shake hands; the agent may take until ``deadline`` seconds to come up. Returns what it said."""
        if self._transport is None:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_connection(lambda: _Wire(self), sock=self._socket)
            self._transport = transport
        return await self._request({"t": "hello", "v": protocol.VERSION}, deadline=deadline)

    async def adopt(
        self, hello: protocol.Header, *, hostname: str, machine_id: str, entropy: bytes
    ) -> GuestInfo:
        """Make the guest its own: clock, entropy, names. Before this it must run nothing."""
        request: protocol.Header = {
            "t": "adopt",
            "time": time.time(),
            "hostname": hostname,
            "machine_id": machine_id,
        }
        answer = await self._request(request, entropy)
        self._info = GuestInfo(
            boot_id=_text(answer, "boot_id"),
            kernel=_text(hello, "kernel"),
            hostname=hostname,
            cpus=_whole(hello, "cpus"),
            memory=_whole(hello, "memory"),
            agent=f"version {_whole(hello, 'v')}",
        )
        return self._info

    async def prepare(self, roots: int) -> None:
        """Have the agent make job roots ahead of time."""
        await self._request({"t": "prepare", "roots": roots})

    def fail(self, error: GuestError) -> None:
        """The channel is of no further use: everything that waits on it gets ``error``."""
        if self._lost is not None:
            return
        self._lost = error
        for future in self._requests.values():
            if not future.done():
                future.set_exception(error)
        self._requests.clear()
        for stream in list(self._streams.values()):
            stream.lose(error)
        self._streams.clear()
        if self._heart is not None:
            self._heart.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        """Drop the channel; the guest itself is its provider's to end."""
        self.fail(GuestLost("the VM has been released"))
        if self._heart is not None:
            await asyncio.gather(self._heart, return_exceptions=True)
        if self._transport is None:
            self._socket.close()

    # --- the Guest port

    @property
    def info(self) -> GuestInfo:
        """See Guest."""
        if self._info is None:
            raise GuestError("the guest has not been adopted yet")
        return self._info

    async def open_job(self, spec: JobRootSpec) -> RemoteRoot:
        """See Guest."""
        name = f"j{next(self._numbers)}"
        request: protocol.Header = {
            "t": "job.open", "job": name, "hostname": spec.hostname, "memory": spec.memory, "pids": spec.pids,
        }  # fmt: skip
        await self._request(request)
        return RemoteRoot(self, name)

    async def ping(self) -> float:
        """See Guest."""
        started = time.monotonic()
        await self._request({"t": "ping"}, deadline=HEARTBEAT_DEADLINE)
        return time.monotonic() - started

    # --- for roots and processes

    async def close_job(self, name: str) -> None:
        """End a job root; a guest that is gone has ended it already."""
        with contextlib.suppress(GuestLost):
            await self._request({"t": "job.close", "job": name})

    def start(self, header: protocol.Header, payload: bytes = b"") -> RemoteProcess:
        """Open a stream with an ``exec`` message."""
        number = next(self._numbers)
        process = RemoteProcess(self, number)
        self.send({"t": "exec", "s": number, **header}, payload)
        self._streams[number] = process
        if self._heart is None or self._heart.done():
            self._heart = asyncio.create_task(self._beat())
        return process

    def send(self, header: protocol.Header, payload: bytes = b"") -> None:
        """A frame to the agent. GuestLost if the channel is gone, GuestError if it is too large."""
        if self._lost is not None:
            raise GuestLost(str(self._lost)) from self._lost
        try:
            frame = protocol.encode(header, payload)
        except protocol.ProtocolError as error:
            raise GuestError(f"too large to send to the guest: {error}") from None
        assert self._transport is not None, "connect comes first"  # noqa: S101 - a programming error, not input
        self._transport.write(frame)

    async def _request(
        self, header: protocol.Header, payload: bytes = b"", deadline: float = REQUEST_DEADLINE
    ) -> protocol.Header:
        number = next(self._numbers)
        future: asyncio.Future[protocol.Header] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        try:
            self.send({**header, "r": number}, payload)
            async with asyncio.timeout(deadline):
                answer = await future
        except TimeoutError:
            raise GuestTimeout(f"the guest did not answer {header['t']!r} within {deadline:g} s") from None
        finally:
            self._requests.pop(number, None)
        if answer.get("error"):
            raise GuestError(f"the guest refused: {str(answer['error'])[:_MAX_FAILURE]}")
        return answer

    async def _beat(self) -> None:
        """While programs run, see that the guest still answers; a guest that hangs is lost."""
        while self._streams:
            await asyncio.sleep(HEARTBEAT_INTERVAL)
            try:
                await self.ping()
            except GuestTimeout as error:
                self.fail(GuestTimeout(f"the guest hangs: {error.message}"))
            except GuestError:
                return

    # --- from the wire

    def received(self, data: bytes) -> None:
        """Bytes from the guest."""
        try:
            for header, payload in self._decoder.feed(data):
                self._dispatch(header, payload)
        except (protocol.ProtocolError, KeyError, TypeError, ValueError) as error:
            self.fail(GuestLost(f"the guest broke the channel's protocol: {error}"))

    def _dispatch(self, header: protocol.Header, payload: bytes) -> None:
        if header["t"] == "reply":
            future = self._requests.pop(_whole(header, "r"), None)
            if future is not None and not future.done():
                future.set_result(header)
            return
        stream = self._streams.get(_whole(header, "s"))
        if stream is None:
            return  # closed on this side while the frame was on its way
        if stream.take(header, payload):
            del self._streams[stream.number]


class _Wire(asyncio.Protocol):
    """asyncio's side of the socket."""

    def __init__(self, client: AgentClient) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.fail(GuestLost(f"the guest's channel closed{f': {exc}' if exc else ''}"))


class RemoteRoot:
    """A JobRoot in the guest."""

    def __init__(self, client: AgentClient, name: str) -> None:
        self._client = client
        self._name = name

    async def __aenter__(self) -> Self:
        """The root is ready."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process of the job and drop its root."""
        await self._client.close_job(self._name)

    async def exec(self, spec: ExecSpec) -> RemoteProcess:
        """See JobRoot."""
        header: protocol.Header = {
            "job": self._name,
            "argv": list(spec.argv),
            "env": dict(spec.env),
            "cwd": spec.cwd,
            "user": spec.user,
            "stdin": spec.stdin,
            "tty": [spec.tty.rows, spec.tty.columns] if spec.tty else None,
            "files": [[path, len(content)] for path, content in spec.files.items()],
            "collect": list(spec.collect),
        }
        return self._client.start(header, b"".join(spec.files.values()))

    async def put(self, path: str, archive: AsyncIterator[bytes], *, user: str | None = None) -> None:
        """See JobRoot."""
        process = self._client.start(
            {"job": self._name, "builtin": "untar", "path": path, "user": user, "stdin": True}
        )
        async for part in archive:
            await process.write(part)
        await process.close_stdin()
        await self._result(process, f"put files at {path}")

    async def get(self, path: str) -> AsyncIterator[bytes]:
        """See JobRoot."""
        process = self._client.start({"job": self._name, "builtin": "tar", "path": path})
        last = b""
        async for part in process.output():
            if last:
                yield last
            last = part
        status = await process.wait()
        if status.code != 0:
            raise GuestError(f"the guest could not read {path}: {_failure(last, status)}")
        yield last

    async def hash_files(self, base: str, patterns: Sequence[str]) -> str:
        """See JobRoot."""
        process = self._client.start(
            {"job": self._name, "builtin": "hash", "path": base, "patterns": list(patterns)}
        )
        return (await self._result(process, f"hash files below {base}")).decode("ascii", "replace")

    @staticmethod
    async def _result(process: RemoteProcess, what: str) -> bytes:
        answer = b""
        async for part in process.output():
            answer = (answer + part)[:_MAX_FAILURE]
        status = await process.wait()
        if status.code != 0:
            raise GuestError(f"the guest could not {what}: {_failure(answer, status)}")
        return answer


def _failure(said: bytes, status: ExitStatus) -> str:
    text = said[-_MAX_FAILURE:].decode(errors="replace").rpartition("cloche-failure: ")[2]
    return status.error or text or f"exit code {status.code}"


class RemoteProcess:
    """A Process in the guest. Never holds more output than the credit it granted."""

    def __init__(self, client: AgentClient, number: int) -> None:
        self.number = number
        self._client = client
        self._chunks: deque[bytes] = deque()
        self._granted = protocol.WINDOW
        self._consumed = 0
        self._news = asyncio.Event()
        self._credit = protocol.WINDOW
        self._room = asyncio.Event()
        self._files: dict[str, CollectedFile] = {}
        self._status: ExitStatus | None = None
        self._lost: GuestError | None = None

    # --- from the wire

    def take(self, header: protocol.Header, payload: bytes) -> bool:
        """A frame of this stream; true when it was the last."""
        kind = header["t"]
        if kind == "data":
            self._granted -= len(payload)
            if self._granted < 0:
                raise ProtocolBroken("more output than was granted")
            self._chunks.append(payload)
            self._news.set()
        elif kind == "credit":
            self._credit += _whole(header, "n")
            self._room.set()
        elif kind == "file":
            if len(self._files) >= _MAX_STREAM_FILES or len(payload) > MAX_COLLECTED:
                raise ProtocolBroken("more files than were asked for")
            self._files[_text(header, "path")] = CollectedFile(payload, truncated=bool(header.get("cut")))
        elif kind == "exit":
            self._status = self._read_status(header)
            self._news.set()
            self._room.set()
            return True
        return False

    def _read_status(self, header: protocol.Header) -> ExitStatus:
        signal = header.get("signal")
        error = header.get("error")
        return ExitStatus(
            code=_whole(header, "code"),
            signal=None if signal is None else _whole(header, "signal"),
            error=None if error is None else str(error)[:_MAX_FAILURE],
            oom_kills=_whole(header, "oom", 0),
            boot_id=_text(header, "boot_id", ""),
            user_time=_number(header, "utime"),
            system_time=_number(header, "stime"),
            max_rss=_whole(header, "rss", 0),
            collected=self._files,
        )

    def lose(self, error: GuestError) -> None:
        """The channel is gone."""
        self._lost = error
        self._news.set()
        self._room.set()

    # --- the Process port

    async def output(self) -> AsyncIterator[bytes]:
        """See Process."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._consume(len(chunk))
                yield chunk
            if self._status is not None or self._lost is not None:
                return
            self._news.clear()
            await self._news.wait()

    def _consume(self, amount: int) -> None:
        self._consumed += amount
        if self._consumed < protocol.WINDOW // 2 or self._status is not None or self._lost is not None:
            return
        self._client.send({"t": "credit", "s": self.number, "n": self._consumed})
        self._granted += self._consumed
        self._consumed = 0

    async def wait(self) -> ExitStatus:
        """See Process."""
        while self._status is None:
            if self._lost is not None:
                raise type(self._lost)(self._lost.message)
            self._news.clear()
            await self._news.wait()
        return self._status

    async def write(self, data: bytes) -> None:
        """See Process."""
        view = memoryview(data)
        while view and self._status is None:
            while self._credit <= 0 and self._status is None and self._lost is None:
                self._room.clear()
                await self._room.wait()
            if self._status is not None:
                return
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


class ProtocolBroken(protocol.ProtocolError):
    """The guest sent what it was not entitled to."""


def _whole(header: protocol.Header, key: str, default: int | None = None) -> int:
    value = header.get(key, default)
    if not isinstance(value, int):
        raise ProtocolBroken(f"{key} is not a whole number")
    return value


def _number(header: protocol.Header, key: str) -> float:
    value = header.get(key, 0.0)
    if not isinstance(value, int | float):
        raise ProtocolBroken(f"{key} is not a number")
    return float(value)


def _text(header: protocol.Header, key: str, default: str | None = None) -> str:
    value = header.get(key, default)
    if not isinstance(value, str):
        raise ProtocolBroken(f"{key} is not text")
    return value[:65536]
