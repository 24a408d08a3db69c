"""Templates: a machine booted once, its agent answering, frozen to disk. Every VM starts as a copy of one.

On disk, ``<store>/templates/<key>/`` holds ``memory`` (sparse, as large as the guest's RAM), ``state`` (the
devices, some 60 KB), ``disk.qcow2`` (the formatted scratch disk), ``overlay.qcow2`` (an empty layer over it,
copied for each VM) and ``template.json``. A folder appears whole or not at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.errors import GuestError, GuestTimeout, ProviderError
from cloche.image.initramfs import build_initramfs
from cloche.records import record
from cloche.vm import agent_archive
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.qemu import machine
from cloche.vm.qemu.process import QemuProcess, open_state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from cloche.guest.protocol import Header
    from cloche.image.model import Image
    from cloche.vm.channel import AgentClient

BOOT_DEADLINE = 60.0
"""Seconds for a cold boot to the agent's first word; 3 under emulation on an idle machine."""
BOOT_ATTEMPTS = 3
"""On a very busy host an emulated kernel now and then stalls for good while it boots; the next one comes up."""
UNUSED_FOR = 14 * 24 * 3600.0
"""Seconds after its last use that a template is kept; making one again takes some seconds."""
LOCK_DEADLINE = 300.0
"""Seconds to wait for another process that is making the same template."""
READY_ROOTS = 3
"""Job roots that wait ready in every VM, so that a job's start costs a message; a pool's warming up takes one."""
SETTLING = 1.5
"""Seconds for a guest to come to rest before it is frozen: what its kernel still had to do, every copy would do."""
_TOOL_DEADLINE = 60.0
_LOCK_POLL = 0.05
_ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
_WARM_UP = (
    # What the first steps of nearly every run touch: read now, it is in every VM's memory from the start.
    (
        "bash",
        "--noprofile",
        "--norc",
        "-e",
        "-c",
        "cat /etc/os-release; ls /; env; true | head -1; [ -d /usr ]",
    ),
    ("sh", "-c", "true"),
    ("git", "--version"),
    ("python3", "-c", "import json, subprocess"),
)


_log = logging.getLogger(__name__)


class BootStalled(ProviderError):  # noqa: N818 - what happened
    """A guest did not come up within BOOT_DEADLINE, without a word about why."""


@record
class Template:
    """A finished template; ``hello`` is what its agent said of the guest."""

    folder: Path
    system: Image
    job: Image
    shape: machine.Shape
    hello: Header

    @property
    def boot(self) -> machine.Boot:
        """What its machine boots from."""
        return boot_files(self.folder, self.system, self.job)

    @property
    def memory(self) -> Path:
        """The guest's RAM."""
        return self.folder / "memory"

    @property
    def state(self) -> Path:
        """The state of the devices."""
        return self.folder / "state"

    @property
    def disk(self) -> Path:
        """The formatted disk, which is never written to again."""
        return self.folder / "disk.qcow2"

    @property
    def overlay(self) -> Path:
        """An empty layer over the template's disk, to be copied."""
        return self.folder / "overlay.qcow2"


class TemplateStore:
    """Makes and finds templates below ``root`` (``<data>/templates``)."""

    def __init__(self, root: Path, binary: str) -> None:
        self._root = root
        self._binary = binary

    async def get(
        self, system: Image, job: Image, shape: machine.Shape, note: Callable[[str], None]
    ) -> Template:
        """The template for these images and this shape, made now if need be (``note`` then says so).

        ProviderError when the machine does not boot; TimeoutError never: every wait has its own error.
        """
        folder = self._root / self._key(system, job, shape)
        if not folder.exists():
            async with self._making(folder):
                if not folder.exists():
                    note(f"making the template: booting image {job.digest[:12]} once")
                    await self._make(folder, system, job, shape)
        with contextlib.suppress(OSError):
            os.utime(folder)  # the last use: what gc goes by
        return self._load(folder, system, job, shape)

    def _key(self, system: Image, job: Image, shape: machine.Shape) -> str:
        binary = Path(self._binary).stat()
        identity = f"{self._binary}:{binary.st_size}:{binary.st_mtime_ns}"
        return machine.digest(
            identity,
            system.digest,
            job.digest,
            agent_archive.digest(),
            machine.fingerprint(shape),
            repr(shape),
        )

    def _load(self, folder: Path, system: Image, job: Image, shape: machine.Shape) -> Template:
        meta = json.loads((folder / "template.json").read_text(encoding="utf-8"))
        return Template(folder, system, job, shape, meta["hello"])

    @contextlib.asynccontextmanager
    async def _making(self, folder: Path) -> AsyncIterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._root / f"{folder.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await _take(lock, f"the template {folder.name}")
            yield
        finally:
            os.close(lock)

    async def _make(self, folder: Path, system: Image, job: Image, shape: machine.Shape) -> None:
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        try:
            hello = await self._boot_and_freeze(unfinished, folder, system, job, shape)
            meta = {
                "hello": hello,
                "made_at": time.time(),
                "shape": repr(shape),
                "system": system.digest,
                "job": job.digest,
            }
            (unfinished / "template.json").write_text(json.dumps(meta), encoding="utf-8")
            unfinished.rename(folder)
        except OSError as error:
            raise ProviderError(
                f"the template could not be written to {self._root}: {error.strerror or error}",
                hint="cloche doctor",
            ) from error
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    async def _boot_and_freeze(
        self, unfinished: Path, folder: Path, system: Image, job: Image, shape: machine.Shape
    ) -> Header:
        for attempt in range(1, BOOT_ATTEMPTS + 1):
            self._lay_out(unfinished, folder, system, shape)
            try:
                return await self._freeze(unfinished, boot_files(unfinished, system, job), shape)
            except BootStalled as error:
                if attempt == BOOT_ATTEMPTS:
                    raise
                _log.warning("%s; booting again", error.message.partition("\n")[0])
        raise AssertionError("every attempt returns or raises")

    @staticmethod
    def _lay_out(unfinished: Path, folder: Path, system: Image, shape: machine.Shape) -> None:
        """The files a machine starts with, in ``unfinished``, referring to each other as in ``folder``."""
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        (unfinished / "initramfs").write_bytes(build_initramfs(system, agent_archive.build()))
        _qemu_img("create", "-q", "-f", "qcow2", str(unfinished / "disk.qcow2"), str(shape.disk))
        backing = ["-u", "-F", "qcow2", "-b", str(folder / "disk.qcow2")]
        _qemu_img("create", "-q", "-f", "qcow2", *backing, str(unfinished / "overlay.qcow2"), str(shape.disk))
        make_sparse(unfinished / "memory", shape.memory)
        make_sparse(unfinished / "inbox", shape.disk)

    async def _freeze(self, folder: Path, boot: machine.Boot, shape: machine.Shape) -> Header:
        state = open_state(str(folder / "state"), os.O_RDWR | os.O_CREAT)
        try:
            async with self._booting(folder, boot, shape) as process:
                hello = await first_word(process)
                await warm_up(process.agent)
                await process.execute("stop")
                await process.migrate("migrate", state)
        finally:
            os.close(state)
        return {key: hello[key] for key in ("v", "kernel", "cpus", "memory")}

    async def answers(self, system: Image, job: Image, shape: machine.Shape, deadline: float) -> bool:
        """Whether a machine of this shape comes up within ``deadline`` seconds; nothing of it is kept."""
        self._root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="probe-", dir=self._root) as name:
            folder = Path(name)
            self._lay_out(folder, folder, system, shape)
            try:
                async with asyncio.timeout(deadline):
                    async with self._booting(folder, boot_files(folder, system, job), shape) as process:
                        await process.agent.connect(deadline)
            except (TimeoutError, ProviderError, GuestError):
                return False
        return True

    @contextlib.asynccontextmanager
    async def _booting(
        self, folder: Path, boot: machine.Boot, shape: machine.Shape
    ) -> AsyncIterator[QemuProcess]:
        process = await QemuProcess.start(
            lambda qmp, agent, console: machine.command(
                self._binary,
                shape,
                boot,
                machine.Wiring(
                    memory=folder / "memory", private=False, disk=folder / "disk.qcow2",
                    inbox=folder / "inbox", network="none",
                    qmp=qmp, agent=agent, console=console, incoming=False,
                ),
            )
        )  # fmt: skip
        try:
            yield process
        finally:
            await process.kill()


def collect_templates(root: Path, images: Collection[str], unused_for: float = UNUSED_FOR) -> list[Path]:
    """Remove templates of images that are gone, those not used for ``unused_for`` seconds, and half-made ones.

    ``images`` are the digests that exist. VMs that run are not disturbed: they have their template open.
    """
    removed = []
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        lock = os.open(
            root / f"{folder.name.partition('.')[0]}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_wanted(folder, images, unused_for):
                shutil.rmtree(folder)
                removed.append(folder)
        except BlockingIOError:
            continue  # being made
        finally:
            os.close(lock)
    return removed


def _is_wanted(folder: Path, images: Collection[str], unused_for: float) -> bool:
    try:
        meta = json.loads((folder / "template.json").read_text(encoding="utf-8"))
        used = folder.stat().st_mtime
        return {meta["system"], meta["job"]} <= set(images) and time.time() - used < unused_for
    except (OSError, ValueError, KeyError, TypeError):
        return False


def make_sparse(path: Path, size: int) -> None:
    """A file of ``size`` bytes that takes no space yet."""
    with path.open("wb") as file:
        file.truncate(size)


def boot_files(folder: Path, system: Image, job: Image) -> machine.Boot:
    """What a machine of these images boots from."""
    return machine.Boot(system.kernel, folder / "initramfs", system.system, job.job)


async def first_word(process: QemuProcess) -> Header:
    """Wait for a cold guest's agent.

    ProviderError with the console's last words when the guest ends, BootStalled when it just does not answer.
    """
    try:
        return await process.agent.connect(BOOT_DEADLINE)
    except GuestError as error:
        kind = BootStalled if isinstance(error, GuestTimeout) else ProviderError
        raise kind(
            f"the guest did not come up: {error.message}\n{process.last_words}".rstrip(),
            hint="cloche image build --force makes the image anew; cloche doctor checks the machine",
        ) from None


async def warm_up(agent: AgentClient) -> None:
    """Run throw-away programs and make job roots ready. Nothing here may read the kernel's boot id."""
    await agent.prepare(1)
    async with await agent.open_job(JobRootSpec("warm-up")) as root:
        for argv in _WARM_UP:
            process = await root.exec(ExecSpec(argv, _ENV))
            async for _ in process.output():
                pass
            await process.wait()
    agent.rest()
    await agent.inspect()
    await agent.prepare(READY_ROOTS)
    await asyncio.sleep(SETTLING)


async def _take(lock: int, what: str) -> None:
    deadline = time.monotonic() + LOCK_DEADLINE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ProviderError(
                    f"another process has been making {what} for {LOCK_DEADLINE:g} s"
                ) from None
            await asyncio.sleep(_LOCK_POLL)
        else:
            return


def _qemu_img(*arguments: str) -> None:
    try:
        result = subprocess.run(
            ["qemu-img", *arguments], capture_output=True, text=True, timeout=_TOOL_DEADLINE, check=False
        )
    except FileNotFoundError:
        raise ProviderError("qemu-img is not installed", hint="apt-get install qemu-utils") from None
    if result.returncode != 0:
        raise ProviderError(f"qemu-img could not make a disk: {result.stderr.strip()}")
