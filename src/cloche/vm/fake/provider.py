"""The fake provider: VMs, guests and job roots in memory."""

from __future__ import annotations

import asyncio
import itertools
import posixpath
import signal
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from cloche.errors import GuestError, GuestLost, GuestTimeout, ProviderError
from cloche.vm.fake.files import Device, FileSystem, Link, Program
from cloche.vm.fake.process import FakeProcess, FakeTask
from cloche.vm.fake.programs import PROGRAMS
from cloche.vm.fake.shell import bash
from cloche.vm.guest import ExecSpec, ExitStatus, GuestInfo, Inspection, JobRootSpec, TtySize
from cloche.vm.provider import MIB, Allocation, Vm, VmSpec, new_vm_id

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from cloche.vm.fake.process import Work
    from cloche.vm.fake.streams import Call
    from cloche.vm.snapshot import VmSnapshot

    Handler = Callable[[ExecSpec, Call], Awaitable[int | ExitStatus | None]]
    ProgramFunction = Callable[[Call], Awaitable[int]]
    OnAllocate = Callable[[VmSpec, int], Awaitable[None]]

MAX_DISK = 256 * MIB
"""Bytes of files one job root holds at most: they are in the host's memory."""
KERNEL = "0.0.0-fake"
_TEMPORARY = "/tmp"  # noqa: S108 - a path of the guest
_FOLDERS = (
    "/usr/bin",
    "/usr/local/bin",
    "/dev",
    "/etc",
    "/home/runner",
    "/proc/sys/kernel/random",
    _TEMPORARY,
)
_ENTROPY = uuid.UUID("3f0d5a0e-6b6c-4a53-8d05-2f9b6ad0c1d7")
_BOOT_IDS = uuid.UUID("5b1ad3a4-3a47-4d50-9a36-6c1f5a0c10be")


class FakeRoot:
    """A job's private root in memory; see ``cloche.vm.guest.JobRoot``."""

    def __init__(self, guest: FakeGuest, spec: JobRootSpec) -> None:
        self.guest = guest
        self.spec = spec
        self.files = _base_image(guest, spec)
        self.tasks: dict[int, FakeTask] = {}
        self.oom_kills = 0
        self._open = True
        self.programs = guest.programs
        try:
            for folder in spec.folders:
                self.files.make_folders(folder)
            self.write_files(spec.files)
        except OSError as error:
            raise GuestError(f"the job's root could not be made ready: {error}") from error
        self.next_pid = 2  # 1 is the root's init

    @property
    def name(self) -> str:
        """The name it was opened by."""
        return self.spec.name

    @property
    def hostname(self) -> str:
        """Its own name, else the guest's."""
        return self.spec.hostname or self.guest.info.hostname

    def start(self, work: Work, terminal: TtySize | None = None) -> FakeTask:
        """Start a process."""
        task = FakeTask(self, self.next_pid, work, terminal)
        self.next_pid += 1
        self.tasks[task.pid] = task
        task.running.add_done_callback(lambda _: self.tasks.pop(task.pid))
        return task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every process and drop the files."""
        self._open = False
        self.guest.roots.discard(self)
        await self.kill()
        self.files = FileSystem(0)

    async def kill(self) -> None:
        """End every process."""
        while self.tasks:
            running = [task.running for task in self.tasks.values()]
            for task in list(self.tasks.values()):
                task.deliver(signal.SIGKILL)
            await asyncio.wait(running)

    def _check(self) -> None:
        self.guest.check()
        if not self._open:
            raise GuestError(f"job root {self.spec.name!r} is closed")

    async def exec(self, spec: ExecSpec) -> FakeProcess:
        """Start a program."""
        self._check()
        process = FakeProcess(self, spec)
        self.guest.under_way.add(process)
        process.ended.add_done_callback(lambda _: self.guest.under_way.discard(process))
        return process

    def write_files(self, files: Mapping[str, bytes]) -> None:
        """Write whole files, making their folders. OSError when it cannot be done."""
        for path, content in files.items():
            self.files.make_folders(posixpath.dirname(path))
            self.files.write(path, content, mode=0o644)

    async def put(self, path: str, archive: AsyncIterator[bytes], *, user: str | None = None) -> None:  # noqa: ARG002 - the fake has no users
        """Unpack a tar stream below ``path``."""
        import tarfile

        self._check()
        data = bytearray()
        async for chunk in archive:
            data += chunk
            if len(data) > MAX_DISK:
                raise GuestError(f"cannot unpack below {path} in the guest: No space left on device")
        try:
            self.files.untar(path, bytes(data))
        except (OSError, tarfile.TarError) as wrong:
            reason = wrong.strerror if isinstance(wrong, OSError) else wrong
            raise GuestError(f"cannot unpack below {path} in the guest: {reason}") from wrong

    async def get(self, path: str) -> AsyncIterator[bytes]:
        """Pack the file or folder at ``path`` as a tar stream."""
        self._check()
        try:
            data = self.files.tar(path)
        except OSError as wrong:
            raise GuestError(f"cannot read {path} in the guest: {wrong.strerror}") from wrong
        for start in range(0, len(data), 64 * 1024):
            yield data[start : start + 64 * 1024]

    async def hash_files(self, base: str, patterns: Sequence[str]) -> str:
        """GitHub's ``hashFiles``."""
        from cloche.vm.fake.hashing import hash_files

        self._check()
        return hash_files(self.files, base, patterns)


class FakeGuest:
    """A guest in memory. ``lose`` ends it; while ``silent`` it answers nobody."""

    def __init__(
        self,
        info: GuestInfo,
        disk: int,
        programs: Mapping[str, ProgramFunction],
        handler: Handler | None,
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self.info = info
        self.programs = programs
        self.disk = min(disk, MAX_DISK)
        self.handler = handler
        self.sleep = sleep
        self.silent = False
        self.loss: GuestError | None = None
        self._over = asyncio.Event()
        self.roots: set[FakeRoot] = set()
        self.under_way: set[FakeProcess] = set()

    def check(self) -> None:
        """GuestLost or GuestTimeout where a real guest would not answer."""
        if self.loss is not None:
            raise self.loss
        if self.silent:
            raise GuestTimeout(f"{self.info.hostname}: the guest did not answer")

    def lose(self, reason: GuestError) -> None:
        """Die: everything under way fails with ``reason``."""
        self.loss = reason
        self._over.set()
        for root in self.roots:
            for task in root.tasks.values():
                task.deliver(signal.SIGKILL)

    async def open_job(self, spec: JobRootSpec) -> FakeRoot:
        """Make a job root."""
        self.check()
        return self.open_root(spec)

    def open_root(self, spec: JobRootSpec) -> FakeRoot:
        """Make a job root, without a guest's waiting."""
        root = FakeRoot(self, spec)
        self.roots.add(root)
        return root

    def reopen_job(self, name: str) -> FakeRoot:
        """Return an open root. GuestError when there is none of that name."""
        self.check()
        for root in self.roots:
            if root.name == name:
                return root
        raise GuestError(f"there is no job root {name!r}")

    async def ping(self) -> float:
        """No time at all."""
        self.check()
        return 0.0

    async def lost(self) -> GuestError:
        """Wait for the guest's end."""
        await self._over.wait()
        assert self.loss is not None, "over is set with the reason"  # noqa: S101 - a programming error, not input
        return self.loss

    async def inspect(self) -> Inspection:
        """What its roots hold. The random numbers follow from the boot id, like all chance in here."""
        self.check()
        tasks = [task for root in self.roots for task in root.tasks.values()]
        state = {
            "jobs": tuple(sorted(root.spec.name for root in self.roots)),
            "processes": tuple(str(task.pid) for task in tasks),
        }
        entropy = uuid.uuid5(_ENTROPY, self.info.boot_id).bytes
        return Inspection(self.info.boot_id, self.info.hostname, time.time(), entropy, state)

    async def close(self) -> None:
        """End every job root, and answer nobody any more."""
        if self.loss is None:
            self.lose(GuestLost(f"{self.info.hostname} was released"))
        for root in list(self.roots):
            await root.close()


class FakeVm:
    """A VM that is none. ``resets`` counts how often it was put back to its template."""

    provider = "fake"

    def __init__(self, vm_id: str, spec: VmSpec, guest: FakeGuest) -> None:
        self.id = vm_id
        self.spec = spec
        self.resets = 0
        self.guest = guest

    async def replace(self, guest: FakeGuest, resets: int) -> None:
        """Another guest takes the place of this one."""
        await self.guest.close()
        self.guest, self.resets = guest, resets


class FakeProvider:
    """Makes VMs in memory: no kernel, no disk, no network; for tests, dry runs and learning.

    Steps run in a small shell (docs/fake.md). ``handler(spec, call)`` may carry out a program in its place:
    it answers with an exit code or an ExitStatus, with ``None`` to leave it to the shell, or raises GuestLost
    to end the guest. ``programs`` adds to those a job root has. ``on_allocate(spec, number)`` runs before VM
    ``number`` (from 1) is made and may raise ProviderError or wait. ``sleep`` is what the shell's ``sleep``
    waits with, ``clock`` what durations are measured by, in seconds.
    """

    name = "fake"
    notes = ("The fake provider runs no VM: a small built-in shell only pretends to run the steps.",)

    def __init__(
        self,
        *,
        handler: Handler | None = None,
        programs: Mapping[str, ProgramFunction] | None = None,
        on_allocate: OnAllocate | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._handler = handler
        self._programs = {**PROGRAMS, "bash": bash, "sh": bash, **(programs or {})}
        self._on_allocate = on_allocate
        self._sleep = sleep
        self._clock = clock
        self._numbers = itertools.count(1)
        self._vms: dict[str, FakeVm] = {}

    async def allocate(self, spec: VmSpec) -> Allocation:
        """Make a VM."""
        start = self._clock()
        if self._on_allocate is not None:
            await self._on_allocate(spec, next(self._numbers))
        vm_id = self._new_id()
        vm = self._vms[vm_id] = FakeVm(vm_id, spec, self._fresh_guest(vm_id, spec, 0))
        return Allocation(vm=vm, duration=self._clock() - start, source="booted")

    def _new_id(self) -> str:
        return new_vm_id()

    def _fresh_guest(self, vm_id: str, spec: VmSpec, resets: int) -> FakeGuest:
        info = GuestInfo(
            boot_id=str(uuid.uuid5(_BOOT_IDS, f"{vm_id}/{resets}")),
            kernel=KERNEL,
            hostname=vm_id,
            cpus=spec.cpus,
            memory=spec.memory,
            agent="fake",
        )
        return self._guest(info, spec)

    def _guest(self, info: GuestInfo, spec: VmSpec) -> FakeGuest:
        return FakeGuest(info, spec.disk, self._programs, self._handler, self._sleep)

    def _ours(self, vm: Vm) -> FakeVm:
        if vm.id not in self._vms:
            raise ProviderError(f"the fake provider has no VM {vm.id}")
        return self._vms[vm.id]

    async def reset(self, vm: Vm) -> None:
        """Replace a VM's guest by one that never ran anything."""
        known = self._ours(vm)
        resets = known.resets + 1
        await known.replace(self._fresh_guest(known.id, known.spec, resets), resets)

    async def snapshot(self, vm: Vm, folder: Path, number: int | None = None) -> VmSnapshot:
        """See SnapshotProvider: files, names and the boot id; no programs."""
        from cloche.vm.fake.snapshot import take

        return await take(self._ours(vm), folder, number)

    async def restore(self, vm: Vm, snapshot: VmSnapshot) -> None:
        """See SnapshotProvider."""
        known = self._ours(vm)
        try:
            guest = self._kept_guest(known.id, snapshot)
        except ProviderError:
            await self.release(vm)
            raise
        await known.replace(guest, known.resets)

    async def resume(self, snapshot: VmSnapshot) -> Allocation:
        """See SnapshotProvider."""
        start = self._clock()
        vm_id = self._new_id() if snapshot.vm_id in self._vms else snapshot.vm_id
        vm = self._vms[vm_id] = FakeVm(vm_id, snapshot.spec, self._kept_guest(vm_id, snapshot))
        return Allocation(vm=vm, duration=self._clock() - start, source="restored")

    def _kept_guest(self, vm_id: str, snapshot: VmSnapshot) -> FakeGuest:
        from cloche.vm.fake.snapshot import fill

        guest = self._guest(replace(snapshot.info, hostname=vm_id), snapshot.spec)
        fill(guest, snapshot)
        return guest

    async def release(self, vm: Vm) -> None:
        """End a VM; again is fine."""
        known = self._vms.pop(vm.id, None)
        if known is not None:
            await known.guest.close()

    async def close(self) -> None:
        """End every VM."""
        for vm in list(self._vms.values()):
            await self.release(vm)


def _base_image(guest: FakeGuest, spec: JobRootSpec) -> FileSystem:
    files = FileSystem(guest.disk)
    for path in _FOLDERS:
        files.make_folders(path)
    files.find(_TEMPORARY).mode = 0o1777
    for name in guest.programs:
        files.add(f"/usr/bin/{name}", Program(name))
    files.add("/bin", Link("usr/bin"), follow=False)
    files.add("/dev/null", Device("null"))
    files.add("/dev/zero", Device("zero"))
    files.write("/etc/hostname", f"{spec.hostname or guest.info.hostname}\n".encode())
    files.write("/proc/sys/kernel/random/boot_id", f"{guest.info.boot_id}\n".encode())
    return files
