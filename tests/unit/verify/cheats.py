"""Providers that cheat, each in one way, over an honest one that makes their guests.

Each could be another package's, registered under the entry point group ``cloche.providers``.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

from cloche.vm.fake import FakeProvider
from cloche.vm.guest import ExecSpec
from cloche.vm.provider import Allocation, new_vm_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from typing import Self

    from cloche.vm.guest import Guest, GuestInfo, JobRoot, JobRootSpec, Process
    from cloche.vm.provider import Vm, VmProvider, VmSpec


class Honest:
    """Hands on everything: what cheats are made of."""

    def __init__(self, provider: VmProvider | None = None) -> None:
        self.inner: VmProvider = provider or FakeProvider()
        self.name = self.inner.name

    @property
    def notes(self) -> tuple[str, ...]:
        return self.inner.notes

    async def allocate(self, spec: VmSpec) -> Allocation:
        return await self.inner.allocate(spec)

    async def reset(self, vm: Vm) -> None:
        await self.inner.reset(vm)

    async def release(self, vm: Vm) -> None:
        await self.inner.release(vm)

    async def close(self) -> None:
        await self.inner.close()


class Mask:
    """A VM of another id than its guest's."""

    def __init__(self, vm: Vm, guest: Guest | None = None, vm_id: str | None = None) -> None:
        self.vm = vm
        self.id = vm_id or new_vm_id()
        self.provider = vm.provider
        self._guest = guest

    @property
    def guest(self) -> Guest:
        return self._guest or self.vm.guest


class Behind:
    """A guest, a root: all of it somebody else's, but for what a subclass says."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


# 1. Another VM for each step


class VmPerStep(Honest):
    """Every program runs in a VM of its own, made while the steps run."""

    async def allocate(self, spec: VmSpec) -> Allocation:
        allocation = await self.inner.allocate(spec)
        vm = allocation.vm
        return dataclasses.replace(
            allocation, vm=Mask(vm, _SwitchingGuest(vm.guest, self.inner, spec), vm.id)
        )

    async def reset(self, vm: Vm) -> None:
        await self.inner.reset(_unmasked(vm))

    async def release(self, vm: Vm) -> None:
        await self.inner.release(_unmasked(vm))


class _SwitchingGuest(Behind):
    def __init__(self, real: Guest, provider: VmProvider, spec: VmSpec) -> None:
        super().__init__(real)
        self.provider = provider
        self.spec = spec

    async def open_job(self, spec: JobRootSpec) -> JobRoot:
        return _SwitchingRoot(await self.real.open_job(spec), self, spec)


class _SwitchingRoot(Behind):
    def __init__(self, real: JobRoot, guest: _SwitchingGuest, spec: JobRootSpec) -> None:
        super().__init__(real)
        self.guest = guest
        self.spec = spec

    async def __aenter__(self) -> Self:
        await self.real.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.real.__aexit__(*error)

    async def exec(self, spec: ExecSpec) -> Process:
        allocation = await self.guest.provider.allocate(self.guest.spec)
        root = await (await allocation.vm.guest.open_job(self.spec)).__aenter__()
        await (await root.exec(ExecSpec(argv=("mkdir", "-p", spec.cwd), env=spec.env))).wait()
        return await root.exec(spec)

    def get(self, path: str) -> AsyncIterator[bytes]:
        chunks: AsyncIterator[bytes] = self.real.get(path)
        return chunks

    async def put(self, path: str, archive: AsyncIterator[bytes], *, user: str | None = None) -> None:
        await self.real.put(path, archive, user=user)

    async def hash_files(self, base: str, patterns: Sequence[str]) -> str:
        digest: str = await self.real.hash_files(base, patterns)
        return digest


def _unmasked(vm: Vm) -> Vm:
    return vm.vm if isinstance(vm, Mask) else vm


# 2. One VM for all


class OneForAll(Honest):
    """One VM under as many ids as are asked for; jobs are told the id that they expect as their host's name."""

    def __init__(self, provider: VmProvider | None = None) -> None:
        super().__init__(provider)
        self._shared: Allocation | None = None
        self._making = asyncio.Lock()

    async def allocate(self, spec: VmSpec) -> Allocation:
        async with self._making:
            self._shared = self._shared or await self.inner.allocate(spec)
        vm_id = new_vm_id()
        mask = Mask(self._shared.vm, _RenamedGuest(self._shared.vm.guest, vm_id), vm_id)
        return dataclasses.replace(self._shared, vm=mask)

    async def reset(self, vm: Vm) -> None:
        """Others are in it."""

    async def release(self, vm: Vm) -> None:
        """Others are in it."""


class _RenamedGuest(Behind):
    def __init__(self, real: Guest, name: str) -> None:
        super().__init__(real)
        self.name = name

    @property
    def info(self) -> GuestInfo:
        info: GuestInfo = self.real.info
        return dataclasses.replace(info, hostname=self.name)

    async def open_job(self, spec: JobRootSpec) -> JobRoot:
        root: JobRoot = await self.real.open_job(dataclasses.replace(spec, hostname=self.name))
        return root


# 3. A used VM, not put back


class NoReset(Honest):
    """Tells that it has put a VM back, and has not."""

    async def reset(self, vm: Vm) -> None:
        """Nothing."""


class KeepsFiles(Honest):
    """Puts a fake VM back but for the files in /tmp, which the next job finds again."""

    def __init__(self) -> None:
        super().__init__(FakeProvider())

    async def allocate(self, spec: VmSpec) -> Allocation:
        allocation = await self.inner.allocate(spec)
        return dataclasses.replace(allocation, vm=_Keeping(allocation.vm))

    async def reset(self, vm: Vm) -> None:
        await self.inner.reset(_unmasked(vm))

    async def release(self, vm: Vm) -> None:
        await self.inner.release(_unmasked(vm))


class _Keeping(Mask):
    def __init__(self, vm: Vm) -> None:
        super().__init__(vm, vm_id=vm.id)
        self._kept: dict[str, Any] = {}

    @property
    def guest(self) -> Guest:
        return _KeepingGuest(self.vm.guest, self._kept)


class _KeepingGuest(Behind):
    def __init__(self, real: Guest, kept: dict[str, Any]) -> None:
        super().__init__(real)
        self._kept = kept

    async def open_job(self, spec: JobRootSpec) -> JobRoot:
        root: Any = await self.real.open_job(spec)
        folder = root.files.find("/tmp")
        folder.entries = self._kept  # what one job writes here all others of this VM find
        job: JobRoot = root
        return job


# 4. An id that the guest does not confirm


class OtherName(Honest):
    """Tells ids of its own; the guests know others."""

    async def allocate(self, spec: VmSpec) -> Allocation:
        allocation = await self.inner.allocate(spec)
        return dataclasses.replace(allocation, vm=Mask(allocation.vm))

    async def reset(self, vm: Vm) -> None:
        await self.inner.reset(_unmasked(vm))

    async def release(self, vm: Vm) -> None:
        await self.inner.release(_unmasked(vm))


# And more


class NeverEnds(Honest):
    """Takes VMs back and lets them run on."""

    async def release(self, vm: Vm) -> None:
        """Nothing."""
