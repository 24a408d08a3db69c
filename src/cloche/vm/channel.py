"""The host's end of the guest channel: the agent's client over a connected socket.

Everything a frame says is untrusted. A guest that breaks the protocol (a frame over the limits, more data than
it was granted, an answer nobody asked for) loses its channel, and whatever waited on it gets GuestLost.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import TYPE_CHECKING

from cloche.errors import GuestError, GuestLost, GuestTimeout
from cloche.guest import protocol
from cloche.records import record
from cloche.vm.guest import GuestInfo, Inspection, JobRootSpec
from cloche.vm.inspection import read_inspection
from cloche.vm.remote import RemoteProcess, RemoteRoot
from cloche.vm.words import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloche.vm.inbox import Inbox

_MAX_NAME = 256


@record
class Deadlines:
    """How long a guest may take, in seconds.

    ``request``: to answer; making a job root is the slowest, some 0.3 s under emulation. ``beat``: between two
    looks at whether a guest whose programs run still answers, ``pulse``: to answer then. ``progress``: between two
    signs of life while it unpacks, packs or hashes files. ``haste``: to end a job's root for who was cancelled.
    """

    request: float = 60.0
    beat: float = 10.0
    pulse: float = 60.0
    progress: float = 300.0
    haste: float = 2.0


DEADLINES = Deadlines()


class AgentClient:
    """A Guest over one socket. Owns the socket; ``close`` gives it back."""

    def __init__(
        self, sock: socket.socket, deadlines: Deadlines = DEADLINES, inbox: Inbox | None = None
    ) -> None:
        self.deadlines = deadlines
        self.inbox = inbox
        self._socket = sock
        self._transport: asyncio.Transport | None = None
        self._gone = asyncio.Event()
        self._over = asyncio.Event()
        self._lent: socket.socket | None = None
        self._decoder = protocol.Decoder(protocol.MAX_GUEST_HEADER, protocol.MAX_COLLECTED)
        self._last_number = 0
        self._requests: dict[int, asyncio.Future[protocol.Header | GuestError]] = {}
        self._streams: dict[int, RemoteProcess] = {}
        self._lost: GuestError | None = None
        self._info: GuestInfo | None = None
        self._heart: asyncio.Task[None] | None = None

    # --- life

    async def connect(self, deadline: float | None = None) -> protocol.Header:
        """Shake hands; the agent may take until ``deadline`` seconds to come up. Returns what it said.

        Again and again is fine.
        """
        if self._transport is None:
            await self._listen()
        return await self._request({"t": "hello", "v": protocol.VERSION}, deadline=deadline)

    async def adopt(
        self,
        hello: protocol.Header,
        *,
        hostname: str,
        machine_id: str,
        entropy: bytes,
        env: Mapping[str, str] | None = None,
    ) -> GuestInfo:
        """Make the guest its own: clock, entropy, names. Before this it must run nothing.

        ``env`` is the job image's own, passed on in ``info``.
        """
        request: protocol.Header = {
            "t": "adopt",
            "time": time.time(),
            "hostname": hostname,
            "machine_id": machine_id,
        }
        answer = await self._request(request, entropy)
        try:
            self._info = GuestInfo(
                boot_id=protocol.text(answer, "boot_id", _MAX_NAME),
                kernel=protocol.text(hello, "kernel", _MAX_NAME),
                hostname=hostname,
                cpus=protocol.whole(hello, "cpus", 1),
                memory=protocol.whole(hello, "memory", 1),
                agent=f"version {protocol.whole(hello, 'v')}",
                env=dict(env or {}),
            )
        except protocol.ProtocolError as error:
            raise self._break(error) from None
        return self._info

    def pause(self) -> int:
        """Ask for nothing until the next program runs, as before a snapshot; the last number used.

        GuestError while something is under way.
        """
        self.rest()
        if self._streams or self._decoder.pending:
            raise GuestError("something is under way in the guest: it cannot be kept as it is")
        return self._last_number

    async def wake(
        self, info: GuestInfo, number: int, *, hostname: str, machine_id: str, entropy: bytes
    ) -> None:
        """Go on with a guest that was kept as it was: its clock and entropy are put right before anything else.

        GuestError when it is not the guest it says it is.
        """
        await self.take_over(info, number)
        request: protocol.Header = {
            "t": "adopt", "time": time.time(), "hostname": hostname, "machine_id": machine_id,
        }  # fmt: skip
        answer = await self._request(request, entropy)
        if answer.get("boot_id") != info.boot_id:
            raise GuestError("the guest that came back is another one: its boot id differs")

    def hand_over(self) -> tuple[socket.socket, int]:
        """Let another process speak to the guest: the channel, the caller's now, and the last number used.

        This client is of no more use. GuestError while something is under way.
        """
        self._check_idle()
        channel, self._lent = self._socket.dup(), self._socket.dup()
        self.fail(GuestLost("the VM has been handed to another process"))
        return channel, self._last_number

    def give_back(self) -> int:
        """Let whoever handed the guest over have it again: the last number used.

        This client is of no more use. GuestError while something is under way.
        """
        self._check_idle()
        self.fail(GuestLost("the VM has been given back"))
        return self._last_number

    def _check_idle(self) -> None:
        if self._requests or self._streams or self._decoder.pending:
            raise GuestError("the guest is in use and cannot be handed over")

    async def take_back(self, number: int) -> AgentClient:
        """Return a client of a guest that had been handed over; ``number`` is the last one used on the channel.

        This client is of no more use, but for ``close``. GuestError when the guest is not to be had.
        """
        if self._lent is None:
            raise GuestError("the guest was handed to nobody")
        client = AgentClient(self._lent.dup(), self.deadlines, self.inbox)
        await client.take_over(self.info, number)
        return client

    async def take_over(self, info: GuestInfo, number: int) -> None:
        """Go on where another process's client left off: what it knew of the guest, and the last number used."""
        self._info, self._last_number = info, number
        await self._listen()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: _Wire(self, self._gone), sock=self._socket)
        self._transport = transport

    async def prepare(self, roots: int) -> None:
        """Have the agent make job roots ahead of time."""
        await self._request({"t": "prepare", "roots": roots})

    def fail(self, error: GuestError) -> None:
        """The channel is of no further use: everything that waits on it gets ``error``."""
        if self._lost is not None:
            return
        self._lost = error
        self._over.set()
        for future in self._requests.values():
            if not future.done():
                future.set_result(error)
        self._drop_streams(error)
        if self._heart is not None:
            self._heart.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _drop_streams(self, error: GuestError, job: str | None = None) -> None:
        for stream in [one for one in self._streams.values() if job in (None, one.job)]:
            stream.lose(error)
            del self._streams[stream.number]

    def _break(self, error: protocol.ProtocolError) -> GuestLost:
        lost = GuestLost(f"the guest broke the channel's protocol: {plain(str(error))}")
        self.fail(lost)
        return lost

    async def close(self) -> None:
        """Drop the channel, whoever else holds it; the guest itself is its provider's to end."""
        self.fail(GuestLost("the VM has been released"))
        if self._lent is not None:
            with self._lent as lent, contextlib.suppress(OSError):
                lent.shutdown(socket.SHUT_RDWR)
            self._lent = None
        if self._heart is not None:
            await asyncio.gather(self._heart, return_exceptions=True)
        if self._transport is None:
            self._socket.close()
        else:
            await self._gone.wait()

    # --- the Guest port

    @property
    def info(self) -> GuestInfo:
        """See Guest."""
        if self._info is None:
            raise GuestError("the guest has not been adopted yet")
        return self._info

    async def open_job(self, spec: JobRootSpec, name: str | None = None) -> RemoteRoot:
        """See Guest. ``name`` is what it was called in a guest that this one takes the place of."""
        name = name or f"j{self._number()}"
        request: protocol.Header = {
            "t": "job.open", "job": name, "hostname": spec.hostname, "memory": spec.memory, "pids": spec.pids,
            "folders": list(spec.folders), "files": [[path, len(content)] for path, content in spec.files.items()],
        }  # fmt: skip
        await self._request(request, b"".join(spec.files.values()))
        return RemoteRoot(self, name)

    def reopen_job(self, name: str) -> RemoteRoot:
        """See Guest."""
        return RemoteRoot(self, name)

    async def ping(self) -> float:
        """See Guest."""
        started = time.monotonic()
        await self._request({"t": "ping"}, deadline=self.deadlines.pulse)
        return time.monotonic() - started

    async def inspect(self) -> Inspection:
        """See Guest."""
        answer = await self._request({"t": "inspect"})
        try:
            return read_inspection(answer)
        except protocol.ProtocolError as error:
            raise self._break(error) from None

    async def lost(self) -> GuestError:
        """See Guest."""
        await self._over.wait()
        assert self._lost is not None, "over is set with the reason"  # noqa: S101 - a programming error, not input
        return self._lost

    # --- for roots and processes

    async def close_job(self, name: str, deadline: float | None = None) -> None:
        """End a job root; a guest that is gone has ended it already."""
        try:
            with contextlib.suppress(GuestLost):
                await self._request({"t": "job.close", "job": name}, deadline=deadline)
        finally:
            self._drop_streams(GuestLost("the job's root has been closed"), name)

    def start(
        self, header: protocol.Header, payload: bytes = b"", collect: Sequence[str] = ()
    ) -> RemoteProcess:
        """Open a stream with an ``exec`` message; only files to ``collect`` may come back."""
        number = self._number()
        self.send({"t": "exec", "s": number, **header}, payload)
        process = self._streams[number] = RemoteProcess(self, number, str(header["job"]), collect)
        if self._heart is None or self._heart.done() or self._heart.cancelling():
            self._heart = asyncio.create_task(self._beat())
        return process

    def rest(self) -> None:
        """Ask for no sign of life until the next program runs.

        For a guest about to be frozen: an answer under way would come out of every copy of it. What is asked
        after this is answered last.
        """
        if self._heart is not None:
            self._heart.cancel()

    def send(self, header: protocol.Header, payload: bytes = b"") -> None:
        """A frame to the agent. GuestLost if the channel is gone, GuestError if it is too large."""
        if self._lost is not None:
            raise GuestLost(self._lost.message, hint=self._lost.hint)
        try:
            frame = protocol.encode(header, payload)
        except protocol.ProtocolError as error:
            raise GuestError(f"too large to send to the guest: {error}") from None
        assert self._transport is not None, "connect comes first"  # noqa: S101 - a programming error, not input
        self._transport.write(frame)

    def _number(self) -> int:
        self._last_number += 1
        return self._last_number

    async def _request(
        self, header: protocol.Header, payload: bytes = b"", deadline: float | None = None
    ) -> protocol.Header:
        seconds = self.deadlines.request if deadline is None else deadline
        number = self._number()
        future: asyncio.Future[protocol.Header | GuestError] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        try:
            self.send({**header, "r": number}, payload)
            async with asyncio.timeout(seconds):
                answer = await future
        except TimeoutError:
            raise GuestTimeout(f"the guest did not answer {header['t']!r} within {seconds:g} s") from None
        finally:
            del self._requests[number]
        if isinstance(answer, GuestError):
            raise type(answer)(answer.message, hint=answer.hint)
        if answer.get("error") is not None:
            raise GuestError(f"the guest refused: {plain(str(answer['error']))}")
        return answer

    async def _beat(self) -> None:
        """While programs run, see that the guest still answers; a guest that hangs is lost."""
        while self._streams:
            await asyncio.sleep(self.deadlines.beat)
            if not self._streams:
                return  # nothing is under way: whoever takes the guest over now finds it so
            try:
                await self.ping()
            except GuestError as error:
                self.fail(GuestTimeout(f"the guest hangs: {error.message}"))

    # --- from the wire

    def received(self, data: bytes) -> None:
        """Bytes from the guest."""
        if self._lost is not None:
            return
        try:
            for header, payload in self._decoder.feed(data):
                self._dispatch(header, payload)
        except protocol.ProtocolError as error:
            self._break(error)

    def _dispatch(self, header: protocol.Header, payload: bytes) -> None:
        is_reply = header["t"] == "reply"
        number = protocol.whole(header, "r" if is_reply else "s", 1)
        if number > self._last_number:
            raise protocol.ProtocolError("an answer that nobody asked for")
        if is_reply:
            future = self._requests.get(number)
            if future is not None and not future.done():
                future.set_result(header)
            return
        stream = self._streams.get(number)  # None: closed on this side while the frame was on its way
        if stream is not None and stream.take(header, payload):
            del self._streams[number]


class _Wire(asyncio.Protocol):
    """asyncio's side of the socket."""

    def __init__(self, client: AgentClient, gone: asyncio.Event) -> None:
        self._client = client
        self._gone = gone

    def data_received(self, data: bytes) -> None:
        self._client.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone.set()
        self._client.fail(GuestLost(f"the guest's channel closed{f': {exc}' if exc else ''}"))
