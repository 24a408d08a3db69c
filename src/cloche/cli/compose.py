"""The composition root: the one place that names concrete providers."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from cloche.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from cloche.config import Settings
    from cloche.session import SessionManager
    from cloche.vm.provider import VmProvider

PROVIDER_ENTRY_POINTS = "cloche.providers"
"""Other packages add providers under this entry point group: a name, and a function of settings and notes."""


def start_early(provider: str | None) -> AbstractContextManager[None]:
    """Start what this provider can start while the rest is imported; who leaves without a VM ends it."""
    if provider == "sandbox":
        from cloche.vm.sandbox.agent import started_early

        return started_early()
    return nullcontext()


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


def make_sessions(settings: Settings, provider: VmProvider) -> SessionManager:
    """Wire the session manager: its pool, and the count of this user's sessions on this machine."""
    from cloche.config import sessions_dir
    from cloche.pool import VmPool
    from cloche.session import SessionManager, SessionRegistry

    registry = SessionRegistry(sessions_dir())
    return SessionManager(VmPool(provider), registry, settings.session.max_concurrent)
