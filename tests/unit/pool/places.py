"""What the tests of this folder share: time that passes when nothing happens, and a provider that does as told."""

from __future__ import annotations

import asyncio
import functools
import selectors
from typing import TYPE_CHECKING, Any

from cloche.errors import ProviderError
from cloche.vm.fake import FakeGuest, FakeProvider, FakeVm

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from cloche.vm.guest import Inspection
    from cloche.vm.provider import Allocation, Vm, VmSpec


class _Selector(selectors.DefaultSelector):
    """Instead of waiting for a time, lets it have passed."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            self.loop.now += timeout
            return super().select(0)
        return super().select(timeout)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes at once whenever there is nothing to do."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self.now = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in such a loop."""

    @functools.wraps(test)
    def run(*arguments: object, **named: object) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*arguments, **named))

    return run


async def settle() -> None:
    """Let everything happen that takes no time to speak of."""
    await asyncio.sleep(0.001)


class ToldProvider(FakeProvider):
    """Does as told: see the attributes. Times are seconds.

    ``resetting`` says for each reset to come: ``fail``, ``hang``, ``nothing`` (it only pretends), ``dirty`` (what
    was left stays), ``mute`` and ``slow`` (the guest does not answer, or late), ``name`` (it has another's name).
    """

    def __init__(self) -> None:
        super().__init__()
        self.makes_in = 0.1
        self.failures = 0
        self.made = 0
        self.most = 0
        self.resetting: list[str] = []
        self._busy = 0

    @property
    def alive(self) -> list[FakeVm]:
        return list(self._vms.values())

    async def allocate(self, spec: VmSpec) -> Allocation:
        self._busy += 1
        try:
            self.most = max(self.most, len(self._vms) + self._busy)
            await asyncio.sleep(self.makes_in)
            if self.failures:
                self.failures -= 1
                raise ProviderError("no room on this machine")
            self.made += 1
            return await super().allocate(spec)
        finally:
            self._busy -= 1

    def _new_id(self) -> str:
        return f"vm-{self.made:012x}"

    def _guest(self, *arguments: Any) -> FakeGuest:
        made = super()._guest(*arguments)
        return ToldGuest(made.info, made.disk, made.programs, made.handler, made.sleep)

    async def reset(self, vm: Vm) -> None:
        how = self.resetting.pop(0) if self.resetting else ""
        old = vm.guest
        await asyncio.sleep(self.makes_in)
        if how == "hang":
            await asyncio.Event().wait()
        if how == "fail":
            await self.release(vm)
            raise ProviderError("QEMU did not start")
        if how == "nothing":
            return
        await super().reset(vm)
        assert isinstance(old, ToldGuest)
        assert isinstance(vm.guest, ToldGuest)
        if how == "dirty":
            vm.guest.left = old.left
        vm.guest.answers_in = {"mute": 1e6, "slow": 14.0}.get(how, 0.0)
        vm.guest.calls_itself = "another" if how == "name" else ""


class ToldGuest(FakeGuest):
    """``left`` is what somebody left in it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.left: tuple[str, ...] = ()
        self.answers_in = 0.0
        self.calls_itself = ""
        self.clock_off = 0.0

    async def inspect(self) -> Inspection:
        await asyncio.sleep(self.answers_in)
        found = await super().inspect()
        state: Mapping[str, tuple[str, ...]] = {**found.state, "files": self.left}
        name, clock = self.calls_itself or found.hostname, found.clock + self.clock_off
        return type(found)(found.boot_id, name, clock, found.entropy, state)
