"""The composition root: the one place that names concrete providers."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, cast

from cloche.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from cloche.config import Settings
    from cloche.daemon.server import Daemon
    from cloche.daemon.sessions import LentSessions
    from cloche.metrics import Metrics
    from cloche.pool import VmPool
    from cloche.session import SessionManager
    from cloche.session.events import SessionObserver
    from cloche.vm.provider import Network, VmProvider, VmSpec

PROVIDER_ENTRY_POINTS = "cloche.providers"
"""Other packages add providers under this entry point group: a name, and a function of settings and notes."""


LENT = {"auto": "qemu", "qemu": "qemu", "sandbox": "sandbox"}
"""The providers whose VMs the daemon lends, by the names they are asked for."""

_control: list[str] = []


def borrow_from(control: str) -> None:
    """Take VMs from the daemon that listens there, as far as it has what is asked for."""
    _control[:] = [control]


def borrows() -> bool:
    """Tell whether this process was told of a daemon to take VMs from."""
    return bool(_control)


@contextlib.asynccontextmanager
async def open_sessions(
    settings: Settings, note: Callable[[str], None]
) -> AsyncIterator[SessionManager | LentSessions]:
    """Sessions with VMs of the daemon's where this process is its runner's, else with VMs of its own."""
    name = settings.vm.provider
    if _control and name in LENT:
        from cloche.daemon.sessions import LentSessions

        lent = await LentSessions.open(
            _control[0], LENT[name], {"limit": settings.session.max_concurrent, "wait": settings.session.wait}
        )
        if lent is not None:
            async with lent:
                yield lent
            return
    from cloche.pool import VmPool

    async with make_sessions(settings, VmPool(make_provider(name, note))) as sessions:
        yield sessions


def default_spec(settings: Settings) -> VmSpec:
    """Return the VM of a run that asks for nothing else."""
    from cloche.config import DEFAULT_IMAGE
    from cloche.vm.provider import VmSpec

    vm = settings.vm
    return VmSpec(DEFAULT_IMAGE, vm.cpus, vm.memory, vm.disk, cast("Network", vm.network))


def make_daemon(
    folder: Path, settings: Settings, note: Callable[[str], None], metrics: Metrics | None = None
) -> Daemon:
    """Wire the daemon: a pool for each provider that is asked for, and ``metrics`` to hear of all that happens."""
    from cloche.daemon.server import Daemon, Service
    from cloche.pool import VmPool

    def make(name: str) -> Service | None:
        if name not in LENT.values():
            return None
        observer = metrics.pool_event if metrics else None
        pool = VmPool(make_provider(name, note), settings=settings.pool, observer=observer)
        if metrics is None:
            return Service(pool, make_sessions(settings, pool))
        metrics.watch_pool(name, lambda: pool.stats)
        return Service(pool, make_sessions(settings, pool, metrics.session_event))

    return Daemon(folder, make, metrics.ran) if metrics else Daemon(folder, make)


def start_early(provider: str | None) -> AbstractContextManager[None]:
    """Start what this provider can start while the rest is imported; who leaves without a VM ends it."""
    if provider == "sandbox" and not borrows():
        from cloche.vm.sandbox.agent import started_early

        return started_early()
    return contextlib.nullcontext()


def make_provider(name: str, note: Callable[[str], None]) -> VmProvider:
    """Make the provider of this name; ``auto`` is QEMU, by KVM where it really runs a guest.

    UsageError for an unknown name, ProviderError where the provider's program is missing.
    """
    from cloche.config import data_dir, vms_dir
    from cloche.image.store import ImageStore

    if name in ("auto", "qemu"):
        from cloche.vm.qemu.provider import QemuProvider

        return QemuProvider(ImageStore(data_dir()), data_dir(), vms_dir(), note=note)
    if name == "sandbox":
        from cloche.vm.sandbox.provider import SandboxProvider

        return SandboxProvider(ImageStore(data_dir()), vms_dir())
    if name == "fake":
        from cloche.vm.fake import FakeProvider

        return FakeProvider()
    return _from_entry_point(name, note)


def _from_entry_point(name: str, note: Callable[[str], None]) -> VmProvider:
    from importlib.metadata import entry_points

    for entry in entry_points(group=PROVIDER_ENTRY_POINTS, name=name):
        provider: VmProvider = entry.load()(note)
        return provider
    raise UsageError(f"there is no provider {name!r}", hint="--vm auto, qemu, sandbox or fake")


def make_sessions(
    settings: Settings, pool: VmPool, observer: SessionObserver | None = None
) -> SessionManager:
    """Wire the session manager: its pool, and the count of this user's sessions on this machine."""
    from cloche.config import sessions_dir
    from cloche.session import SessionManager, SessionRegistry

    ours = settings.session
    return SessionManager(
        pool,
        SessionRegistry(sessions_dir()),
        ours.max_concurrent,
        wait=ours.wait,
        session_timeout=ours.session_timeout,
        cleanup_interval=ours.cleanup_interval,
        auto_cleanup=ours.auto_cleanup,
        observer=observer,
    )
