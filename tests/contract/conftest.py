"""One contract, several providers: every test of this folder runs on each of them.

A provider joins by an entry in ``PROVIDERS``. One that this machine lacks is skipped with the reason. Tests
marked ``real_only`` need what the fake does not pretend to have.

The VM is made once for each provider; each test gets a job root of its own in it, which keeps them apart.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest
import pytest_asyncio

from cloche.config import data_dir
from cloche.errors import ImageError
from cloche.image.store import ImageStore
from cloche.vm.fake import FakeProvider
from cloche.vm.guest import ExecSpec, ExitStatus, JobRoot, JobRootSpec
from cloche.vm.provider import VmSpec
from cloche.vm.qemu.provider import QemuProvider
from cloche.vm.sandbox.provider import SandboxProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from cloche.image.model import Kind
    from cloche.vm.provider import Vm, VmProvider

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Entry:
    """How to make a provider, in a folder of its own, and why this machine cannot (``None`` if it can)."""

    name: str
    make: Callable[[Path], VmProvider]
    missing: Callable[[], str | None] = lambda: None
    marks: tuple[pytest.MarkDecorator, ...] = ()
    many_users: bool = True


def images() -> ImageStore:
    return ImageStore(data_dir())


def lacking(*wanted: Kind) -> str | None:
    names: dict[Kind, str] = {"job": "default", "system": "system"}
    try:
        for kind in wanted:
            images().resolve(names[kind], kind)
    except ImageError as error:
        return f"{error}; {error.hint} makes it"
    return None


def lacking_for_qemu() -> str | None:
    if shutil.which("qemu-system-x86_64") is None:
        return "QEMU is not installed"
    return lacking("system", "job")


PROVIDERS = [
    Entry("fake", lambda _folder: FakeProvider()),
    Entry(
        "sandbox",
        lambda folder: SandboxProvider(images(), folder / "vms"),
        lambda: lacking("job"),
        (pytest.mark.sandbox,),
        many_users=os.geteuid() == 0,  # all that an ordinary user may map into a sandbox is that user
    ),
    Entry(
        "qemu",
        lambda folder: QemuProvider(images(), data_dir(), folder / "vms"),  # its templates are worth keeping
        lacking_for_qemu,
        (pytest.mark.vm,),
    ),
]


class Run(Protocol):
    """Run a shell script (or, given as ``argv``, a program) to its end: its output and status."""

    async def __call__(
        self, text: str = "", *, root: JobRoot | None = None, **spec: object
    ) -> tuple[bytes, ExitStatus]: ...


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "real_only: needs programs or kernel features that the fake does not pretend"
    )
    config.addinivalue_line("markers", "many_users: needs a guest with more than one user")


@pytest.fixture(scope="session", params=[pytest.param(e, marks=e.marks, id=e.name) for e in PROVIDERS])
def entry(request: pytest.FixtureRequest) -> Entry:
    chosen: Entry = request.param
    if reason := chosen.missing():
        pytest.skip(reason)
    return chosen


@pytest.fixture(autouse=True)
def _real_only(request: pytest.FixtureRequest, entry: Entry) -> None:
    if request.node.get_closest_marker("real_only") and entry.name == "fake":
        pytest.skip("only on providers with a kernel")
    if request.node.get_closest_marker("many_users") and not entry.many_users:
        pytest.skip("everybody is the same user here")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def provider(entry: Entry, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VmProvider]:
    made = entry.make(tmp_path_factory.mktemp(entry.name))
    yield made
    await made.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def vm(provider: VmProvider) -> AsyncIterator[Vm]:
    allocation = await provider.allocate(VmSpec())
    yield allocation.vm
    await provider.release(allocation.vm)


@pytest_asyncio.fixture(loop_scope="session")
async def root(vm: Vm) -> AsyncIterator[JobRoot]:
    async with await vm.guest.open_job(JobRootSpec("test")) as made:
        yield made


@pytest.fixture
def script() -> Callable[..., ExecSpec]:
    """Make the ExecSpec of a bash script."""

    def make(text: str, **spec: object) -> ExecSpec:
        made = ExecSpec(["/bin/bash", "-c", text], env={"PATH": PATH}, cwd="/tmp")
        return dataclasses.replace(made, **spec)  # type: ignore[arg-type] # fields by name, as given

    return make


@pytest.fixture
def run(root: JobRoot, script: Callable[..., ExecSpec]) -> Run:
    own = root

    async def run(text: str = "", *, root: JobRoot | None = None, **spec: object) -> tuple[bytes, ExitStatus]:
        process = await (root or own).exec(script(text, **spec))
        output = b"".join([chunk async for chunk in process.output()])
        return output, await process.wait()

    return run
