"""A running QEMU: its process, its monitor, its console's last words, its guest channel.

Every channel is one end of a socket pair that QEMU inherits: there is no socket file to find or leave behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Self

from cloche.errors import GuestLost, ProviderError
from cloche.vm.channel import AgentClient
from cloche.vm.child import Child, Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qemu.qmp import QMPClient

    from cloche.vm.hostgroups import HostGroup
    from cloche.vm.inbox import Inbox

MONITOR_DEADLINE = 20.0
"""Seconds for QEMU to come up or to answer its monitor; it takes 0.03, but the machine may be busy."""
_POLL = 0.002


class QemuProcess:
    """QEMU with its monitor connected. Owns the process and every socket; ``kill`` gives all of it back."""

    def __init__(
        self, child: Child, qmp: QMPClient, agent: AgentClient, console: Tail, group: HostGroup | None = None
    ) -> None:
        self.child = child
        self._group = group
        self.agent = agent
        self._qmp = qmp
        self._console = console
        self._watch = asyncio.create_task(self._watch_end())

    @classmethod
    async def start(
        cls,
        command: Callable[[int, int, int], Sequence[str]],
        inbox: Inbox | None = None,
        group: HostGroup | None = None,
    ) -> Self:
        """Start QEMU. ``command`` gets the descriptors of monitor, agent and console; ``group`` is removed with it.

        ProviderError when QEMU cannot be started or ends before its monitor answers, with what it said.
        """
        pairs = [socket.socketpair() for _ in range(3)]
        ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        descriptors = [end.fileno() for end in theirs]
        argv = command(descriptors[0], descriptors[1], descriptors[2])
        try:
            child = Child.start(argv, descriptors)
        except BaseException:
            for end in ours:
                end.close()
            if group:
                group.remove()
            raise
        finally:
            for end in theirs:
                end.close()
        if group:
            group.add(child.pid)
        console = Tail(ours[2].detach())
        try:
            qmp = await cls._monitor(child, ours[0])
        except BaseException:
            await child.kill()
            if group:
                group.remove()
            console.close()
            for end in ours[:2]:
                end.close()
            raise
        return cls(child, qmp, AgentClient(ours[1], inbox=inbox), console, group)

    @staticmethod
    async def _monitor(child: Child, sock: socket.socket) -> QMPClient:
        from qemu.qmp import ConnectError, QMPClient

        # What the library logs is said again by the errors raised here.
        logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
        qmp = QMPClient("cloche")
        try:
            async with asyncio.timeout(MONITOR_DEADLINE):
                await qmp.connect(sock)
        except TimeoutError:
            raise ProviderError(f"QEMU's monitor did not answer within {MONITOR_DEADLINE:g} s") from None
        except ConnectError:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), MONITOR_DEADLINE)
            raise ProviderError(f"QEMU did not start: {child.said.strip() or 'it said nothing'}") from None
        return qmp

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self.child.pid

    @property
    def last_words(self) -> str:
        """The end of the guest's console and of QEMU's own messages, for errors."""
        killed = "this host killed QEMU for want of memory" if self._group and self._group.oom_kills else ""
        parts = (self._console.text.strip(), self.child.said.strip(), killed)
        return "\n".join(part for part in parts if part)

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """A QMP command. ProviderError with QEMU's words when it fails, does not answer, or QEMU is gone."""
        from qemu.qmp import QMPError

        try:
            async with asyncio.timeout(MONITOR_DEADLINE):
                answer: object = await self._qmp.execute(command, dict(arguments or {}))
        except TimeoutError:
            raise ProviderError(f"QEMU did not answer {command!r} within {MONITOR_DEADLINE:g} s") from None
        except QMPError as error:
            raise ProviderError(f"QEMU refused {command!r}: {error}") from None
        return answer

    async def migrate(self, direction: str, descriptor: int) -> None:
        """Save (``migrate``) or load (``migrate-incoming``) the device state, leaving out file-backed memory.

        Raises ProviderError when that fails or takes too long.
        """
        capability = {"capability": "x-ignore-shared", "state": True}
        await self.execute("migrate-set-capabilities", {"capabilities": [capability]})
        await self._transfer(direction, descriptor)

    async def load_devices(self, descriptor: int) -> None:
        """Load the state that ``xen-save-devices-state`` wrote. ProviderError."""
        await self._transfer("migrate-incoming", descriptor)

    async def _transfer(self, direction: str, descriptor: int) -> None:
        self._qmp.send_fd_scm(descriptor)
        await self.execute("getfd", {"fdname": "state"})
        await self.execute(direction, {"uri": "fd:state"})
        until = time.monotonic() + MONITOR_DEADLINE
        while (status := await self._migration()) != "completed":
            if status in ("failed", "cancelled"):
                raise ProviderError(f"QEMU could not {direction}: {self.child.said.strip() or status}")
            if time.monotonic() > until:
                raise ProviderError(f"QEMU did not {direction} within {MONITOR_DEADLINE:g} s")
            await asyncio.sleep(_POLL)

    async def _migration(self) -> object:
        answer = await self.execute("query-migrate")
        return answer.get("status") if isinstance(answer, dict) else None

    async def _watch_end(self) -> None:
        code = await self.child.wait()
        words = self.last_words[-2000:]
        self.agent.fail(GuestLost(f"the VM ended (QEMU's exit code {code}){f': {words}' if words else ''}"))

    async def kill(self) -> None:
        """End QEMU and close every channel; harmless when it has ended already."""
        await self.agent.close()
        await self.child.kill()
        if self._group:
            self._group.remove()
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        with contextlib.suppress(Exception):  # the monitor's complaint that QEMU is gone, which is the point
            await self._qmp.disconnect()
        self._console.close()


def open_state(path: str, flags: int) -> int:
    """A device-state file for QEMU to inherit."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
