"""The pool: the one place that asks a provider for VMs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cloche.errors import ProviderError
from cloche.records import record
from cloche.tasks import finish

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from cloche.vm.provider import Allocation, Vm, VmProvider, VmSpec

ALLOCATION_TIMEOUT = 120.0
"""Seconds a provider has to make a VM, unless told otherwise."""
RELEASE_TIMEOUT = 30.0
"""Seconds a provider has to end a VM."""


@record
class PoolStats:
    """Evidence: VMs handed out and given back since the start, and those out now."""

    allocated: int
    released: int
    active: int


class VmPool:
    """Hands out VMs and takes them back. Each is made when asked for and destroyed when given back.

    An async context manager: leaving it releases every VM and closes the provider.
    """

    def __init__(
        self,
        provider: VmProvider,
        *,
        allocation_timeout: float = ALLOCATION_TIMEOUT,
        release_timeout: float = RELEASE_TIMEOUT,
    ) -> None:
        self._provider = provider
        self._allocation_timeout = allocation_timeout
        self._release_timeout = release_timeout
        self._active: dict[str, Vm] = {}
        self._allocated = 0
        self._released = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self._provider.name

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about its VMs."""
        return self._provider.notes

    @property
    def stats(self) -> PoolStats:
        """The counts so far."""
        return PoolStats(self._allocated, self._released, len(self._active))

    async def allocate(self, spec: VmSpec) -> Allocation:
        """Hand out a VM of this shape.

        Raises ProviderError when there is none within the allocation deadline, and what the provider raises.
        """
        try:
            async with asyncio.timeout(self._allocation_timeout):
                allocation = await self._provider.allocate(spec)
        except TimeoutError as late:
            raise ProviderError(
                f"the {self.provider} provider had no VM ready after {self._allocation_timeout:g} s",
                hint="`cloche doctor` says what this machine can do",
            ) from late
        self._active[allocation.vm.id] = allocation.vm
        self._allocated += 1
        return allocation

    async def release(self, vm: Vm) -> None:
        """Take a VM back; one that is already back is left alone. Goes on when the caller is cancelled.

        Raises ProviderError when the provider does not end it within the release deadline.
        """
        if self._active.pop(vm.id, None) is None:
            return
        self._released += 1
        await finish(self._end(vm))

    async def _end(self, vm: Vm) -> None:
        try:
            async with asyncio.timeout(self._release_timeout):
                await self._provider.release(vm)
        except TimeoutError as late:
            raise ProviderError(
                f"VM {vm.id} did not end within {self._release_timeout:g} s",
                hint="`cloche gc` removes what is left of it once this process has ended",
            ) from late

    async def close(self) -> None:
        """Release every VM and close the provider, whatever one of them raises."""
        vms = list(self._active.values())
        results = await asyncio.gather(*map(self.release, vms), return_exceptions=True)
        await finish(self._provider.close())
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            raise failures[0]
