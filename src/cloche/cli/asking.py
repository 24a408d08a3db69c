"""Asking the daemon one thing."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Any

from cloche.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONNECT = 5.0
_ANSWER = 30.0


async def ask(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Send a request and return the answer; ``None`` when no daemon is up. ProviderError when it does not answer."""
    import asyncio

    from cloche.config import daemon_dir
    from cloche.daemon.packets import connect
    from cloche.daemon.wire import CONTROL_SOCKET

    path = daemon_dir() / CONTROL_SOCKET
    if not path.exists():
        return None
    try:
        packets = await connect(str(path), _CONNECT)
    except ProviderError as error:
        if isinstance(error.__cause__, ConnectionRefusedError):
            return None  # it was killed: its socket is left
        raise
    try:
        await packets.send({"n": 1, **request})
        async with asyncio.timeout(_ANSWER):
            received = await packets.receive()
    except TimeoutError:
        raise ProviderError(f"the daemon did not answer within {_ANSWER:g} s") from None
    finally:
        packets.close()
    if received is None:
        raise ProviderError("the daemon ended before it answered")
    answer = received[0]
    if "error" in answer:
        raise ProviderError(answer["error"]["message"], hint=answer["error"]["hint"])
    return answer


def wait_for_end() -> None:
    """Wait until no daemon has the lock: then all that it had is given back."""
    from cloche.config import daemon_dir
    from cloche.daemon.wire import LOCK

    descriptor = os.open(daemon_dir() / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)
