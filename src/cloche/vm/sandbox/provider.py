"""The sandbox provider: what runs in it shares the host's kernel, and Cloche says so.

Started by root it shifts every user into an unused range of ids; started by anyone else, everybody in it is the
one user who started it. It has no limits on memory, and the host's network unless it has none at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.errors import GuestError, GuestLost, ImageError, ProviderError
from cloche.tasks import finish
from cloche.vm.channel import AgentClient
from cloche.vm.child import Child
from cloche.vm.guest import JobRootSpec
from cloche.vm.leases import Lease
from cloche.vm.provider import Allocation, VmSpec, new_vm_id
from cloche.vm.sandbox import agent

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from cloche.image.model import Image
    from cloche.image.store import ImageStore
    from cloche.vm.guest import GuestInfo
    from cloche.vm.provider import Vm
    from cloche.vm.snapshot import VmSnapshot

START_DEADLINE = 30.0
"""Seconds for the agent's first word; 0.1 on an idle machine."""
_END_DEADLINE = 5.0
_NOTE = (
    "sandbox: no VM; the workflow shares this machine's kernel, without limits on memory or disk,"
    " and its network unless it has none (--network none)"
)
_SNAPSHOT_NOTE = "sandbox: a snapshot holds files of jobs, but no processes, and nothing in /run or /dev/shm"
_USER_NOTE = "sandbox: started without root, so everybody in it is one user, its root; sudo changes nothing"
_SPACE_HINT = "cloche doctor shows the space that is left, cloche gc frees what nothing uses"


class SandboxVm:
    """A sandbox: its agent's process, its lease (the folder of its jobs), its guest."""

    provider = "sandbox"

    def __init__(self, image: Image, spec: VmSpec, lease: Lease, resources: contextlib.ExitStack) -> None:
        """``resources`` gives back what the sandbox holds besides its processes: its lease, its image."""
        self.id = lease.folder.name
        self.image = image
        self.spec = spec
        self.lease = lease
        self.machine_id = ""
        self._resources = resources
        self._agent: _RunningAgent | None = None

    @property
    def guest(self) -> AgentClient:
        """The agent's client, another one after each reset."""
        return self._running.guest

    @property
    def info(self) -> GuestInfo:
        """What the guest said of itself."""
        return self.guest.info

    @property
    def child(self) -> Child:
        """Its first process."""
        return self._running.child

    @property
    def _running(self) -> _RunningAgent:
        if self._agent is None:
            raise ProviderError(f"sandbox {self.id} has not been started")
        return self._agent

    def start(self, boot_id: str) -> None:
        """Start its agent, in a folder without anything of an earlier one."""
        child, channel = _start_agent(self.lease.folder, self.image, self.spec, boot_id)
        self._agent = _RunningAgent(child, AgentClient(channel))
        self.lease.record_process(child.pid)

    @property
    def last_words(self) -> str:
        """What it said when it went wrong."""
        return self._agent.child.said.strip() if self._agent else ""

    async def stop(self) -> None:
        """End every process of it."""
        if self._agent is not None:
            await self._agent.end()

    async def destroy(self) -> None:
        """End every process of it, remove the folder."""
        await self.stop()
        await asyncio.to_thread(self._resources.close)


class _RunningAgent:
    def __init__(self, child: Child, guest: AgentClient) -> None:
        self.child = child
        self.guest = guest
        self._watch = asyncio.create_task(self._watch_end())

    async def _watch_end(self) -> None:
        code = await self.child.wait()
        said = self.child.said.strip()
        self.guest.fail(GuestLost(f"the sandbox ended (exit code {code}){f': {said}' if said else ''}"))

    async def end(self) -> None:
        """The agent ends when its channel closes, and what started it not before everything in there has ended.

        Killed, it would leave them to end in the kernel's own time.
        """
        await self.guest.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.child.wait(), _END_DEADLINE)
        await self.child.kill()
        self._watch.cancel()


class SandboxProvider:
    """Makes sandboxes; ``vms`` holds a folder for each that lives."""

    name = "sandbox"

    def __init__(self, images: ImageStore, vms: Path) -> None:
        self._images = images
        self._vms = vms
        self._live: dict[str, SandboxVm] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """That there is no VM, and what that means."""
        notes = [_NOTE]
        if os.geteuid() != 0:
            notes.append(_USER_NOTE)
        return tuple(notes)

    async def allocate(self, spec: VmSpec) -> Allocation:
        """See VmProvider."""
        started = time.perf_counter()
        vm = await self._make(self._images.resolve(spec.image, "job"), spec)
        return Allocation(vm, time.perf_counter() - started, "booted")

    async def reset(self, vm: Vm) -> None:
        """See VmProvider: everything in it ends, its files go, another agent begins."""
        await self._renew(self._ours(vm), None)

    async def snapshot(self, vm: Vm, folder: Path, number: int | None = None) -> VmSnapshot:
        """See SnapshotProvider: files only, nothing of what runs."""
        from cloche.vm.sandbox.snapshot import take  # not every run takes one

        ours = self._ours(vm)
        return await take(ours, folder, ours.guest.pause() if number is None else number)

    async def restore(self, vm: Vm, snapshot: VmSnapshot) -> None:
        """See SnapshotProvider: everything in it ends, its files are the snapshot's, another agent begins."""
        await self._renew(self._ours(vm), snapshot)

    async def resume(self, snapshot: VmSnapshot) -> Allocation:
        """See SnapshotProvider."""
        from cloche.vm.sandbox.snapshot import kept_roots

        started = time.perf_counter()
        kept_roots(snapshot)  # before anything is made for it
        vm = await self._make(self._image_of(snapshot), snapshot.spec, snapshot)
        return Allocation(vm, time.perf_counter() - started, "restored")

    def _image_of(self, snapshot: VmSnapshot) -> Image:
        try:
            return self._images.resolve(str(snapshot.extra["image"]), "job")
        except (KeyError, ImageError) as gone:
            raise ProviderError(
                f"the image of the snapshot in {snapshot.folder} is gone", hint="run the workflow anew"
            ) from gone

    def _ours(self, vm: Vm) -> SandboxVm:
        if vm.id not in self._live:
            raise ProviderError(f"there is no sandbox {vm.id} of this provider")
        return self._live[vm.id]

    async def _make(self, image: Image, spec: VmSpec, snapshot: VmSnapshot | None = None) -> SandboxVm:
        with _files_made():
            vm = self._place(image, spec, snapshot.vm_id if snapshot else None)
            await self._bring_up(vm, snapshot)
        self._live[vm.id] = vm
        return vm

    async def _renew(self, vm: SandboxVm, snapshot: VmSnapshot | None) -> None:
        try:
            with _files_made():
                try:
                    await finish(vm.stop())
                    await asyncio.to_thread(vm.lease.empty)
                except BaseException:
                    await finish(vm.destroy())
                    raise
                await self._bring_up(vm, snapshot)
        except BaseException:
            del self._live[vm.id]
            raise

    def _place(self, image: Image, spec: VmSpec, wanted: str | None) -> SandboxVm:
        """Make a sandbox that has nothing but its folder, of the id ``wanted`` unless another has it."""
        with contextlib.ExitStack() as resources:
            resources.enter_context(image.hold())
            lease = self._lease(wanted)
            resources.callback(lease.drop)
            return SandboxVm(image, spec, lease, resources.pop_all())

    def _lease(self, wanted: str | None) -> Lease:
        if wanted is not None:
            with contextlib.suppress(FileExistsError):
                return Lease.take(self._vms, wanted)
        return Lease.take(self._vms, new_vm_id())

    async def _bring_up(self, vm: SandboxVm, snapshot: VmSnapshot | None) -> None:
        """Start the sandbox's agent; what the sandbox had is given back when that fails."""
        try:
            (vm.lease.folder / "jobs").mkdir(mode=0o755)
            await (_begin(vm) if snapshot is None else _go_on(vm, snapshot))
        except BaseException as error:
            await finish(vm.destroy())
            if isinstance(error, GuestError):
                raise ProviderError(
                    f"the sandbox did not come up: {vm.last_words or error.message}", hint=_HINT
                ) from None
            raise

    async def release(self, vm: Vm) -> None:
        """See VmProvider."""
        ours = self._live.pop(vm.id, None)
        if ours is not None:
            await finish(ours.destroy())

    async def close(self) -> None:
        """See VmProvider."""
        for vm in list(self._live.values()):
            await self.release(vm)


_HINT = (
    "the sandbox needs user namespaces and overlayfs in them (Linux 5.11 or newer; on Ubuntu, "
    "sysctl kernel.apparmor_restrict_unprivileged_userns=0); cloche doctor checks"
)


async def _begin(vm: SandboxVm) -> None:
    vm.machine_id = os.urandom(16).hex()
    vm.start(str(uuid.uuid4()))
    await _identify(vm)


async def _go_on(vm: SandboxVm, snapshot: VmSnapshot) -> None:
    """Start an agent on a snapshot's files, and have it open the roots that were open."""
    from cloche.vm.sandbox.snapshot import give_files, kept_roots

    roots = kept_roots(snapshot)
    await asyncio.to_thread(give_files, snapshot, roots, vm.lease.folder / "jobs")
    vm.machine_id = snapshot.machine_id
    vm.start(snapshot.boot_id)
    await vm.guest.take_over(snapshot.info, snapshot.number)  # no name of a root is used twice
    await _identify(vm)
    for root in roots:
        await vm.guest.open_job(JobRootSpec(root.name, root.hostname), root.name)


async def _identify(vm: SandboxVm) -> None:
    hello = await vm.guest.connect(START_DEADLINE)
    await vm.guest.adopt(hello, hostname=vm.id, machine_id=vm.machine_id, entropy=b"", env=vm.image.env)


@contextlib.contextmanager
def _files_made() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ProviderError(f"the sandbox's files could not be made: {error}", hint=_SPACE_HINT) from error


def _resolv_conf() -> str:
    try:
        return Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _start_agent(folder: Path, image: Image, spec: VmSpec, boot_id: str) -> tuple[Child, socket.socket]:
    """Start the sandbox's first process; our end of its channel."""
    plan = {
        "lower": str(image.tree),
        "jobs": str(folder / "jobs"),
        "network": spec.network,
        "boot_id": boot_id,
        "resolv_conf": _resolv_conf() if spec.network == "user" else "",
    }
    started = agent.take()
    try:
        started.become(plan)
        return Child(started.process), started.channel
    except BaseException:
        started.end()
        raise
