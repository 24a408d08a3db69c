"""A frame link over a file descriptor: nothing blocks, file descriptors may travel along on a socket.

The agent uses one for its channel to the host and one for each job's init.
"""

from __future__ import annotations

import os
import socket
from collections import deque

from cloche.guest import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_READ = 64 * 1024
"""Bytes at a time: memory for much more is mapped and unmapped each time, which costs dear under emulation."""
_PAGE = 4096
_BURST = 64
_MAX_FDS = 16


class LinkClosed(Exception):  # noqa: N818 - a state of the link, not a mistake
    """The other end is gone."""


class Link:
    """Frames in and out of a non-blocking descriptor.

    ``send`` queues and writes what the descriptor takes; ``flush`` goes on when it is writable again;
    ``receive`` returns the frames one read brought. Received descriptors wait in ``fds`` in order of arrival.
    """

    def __init__(self, descriptor: int, sock: socket.socket | None = None) -> None:
        os.set_blocking(descriptor, False)
        self.fileno = descriptor
        self.fds: deque[int] = deque()
        self._socket = sock
        self._decoder = protocol.Decoder()
        self._queue: deque[tuple[memoryview, tuple[int, ...]]] = deque()

    @property
    def wants_write(self) -> bool:
        """Whether something waits for the descriptor to be writable."""
        return bool(self._queue)

    def send(self, header: protocol.Header, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Queue a frame. ``fds`` are sent with it and closed here once they are on their way, or cannot be."""
        self._queue.append((memoryview(protocol.encode(header, payload)), tuple(fds)))
        self.flush()

    def flush(self) -> None:
        """Write what the descriptor takes now. LinkClosed if the other end is gone."""
        while self._queue:
            view, fds = self._queue.popleft()
            try:
                written = self._write(view, fds)
            except BlockingIOError:
                self._queue.appendleft((view, fds))
                return
            except OSError as error:
                self._queue.appendleft((view, fds))
                self._drop_queue()
                raise LinkClosed(str(error)) from None
            _close(fds)
            if written < len(view):
                self._queue.appendleft((view[written:], ()))

    def _write(self, view: memoryview, fds: tuple[int, ...]) -> int:
        if fds and self._socket is not None:
            return socket.send_fds(self._socket, [view], fds)
        return os.write(self.fileno, view)

    def drop(self) -> None:
        """Let go of what waits in either direction; the descriptor itself is its owner's to close."""
        self._drop_queue()
        _close(self.fds)
        self.fds.clear()

    def _drop_queue(self) -> None:
        while self._queue:
            _close(self._queue.popleft()[1])

    def receive(self) -> list[tuple[protocol.Header, bytes]]:
        """The frames that one read completes. LinkClosed at the end of the stream."""
        try:
            data = self._read()
        except BlockingIOError:
            return []
        except OSError as error:
            raise LinkClosed(str(error)) from None
        if not data:
            raise LinkClosed("end of stream")
        return self._decoder.feed(data)

    def _read(self) -> bytes:
        if self._socket is None:
            return self._read_pages()
        data, fds, _, _ = socket.recv_fds(self._socket, _READ, _MAX_FDS)
        for descriptor in fds:
            os.set_inheritable(descriptor, False)
            self.fds.append(descriptor)
        return data

    def _read_pages(self) -> bytes:
        """A virtio-serial port gives at most a page for each read; going round the loop for each is dear."""
        parts = [os.read(self.fileno, _PAGE)]
        while len(parts[-1]) == _PAGE and len(parts) < _BURST:
            try:
                parts.append(os.read(self.fileno, _PAGE))
            except BlockingIOError:
                break
        return b"".join(parts)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
