"""The operator's settings, typed, with their defaults."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from dataclasses import field
from typing import TYPE_CHECKING, Any

from cloche.config.kinds import (
    ADDRESS,
    COUNT,
    DURATION,
    DURATION_OF_MINUTES,
    DURATION_OR_NONE,
    FLAG,
    MIB,
    NETWORK,
    PROVIDER,
    SIZE,
    SNAPSHOTS,
    STRATEGY,
    TEXT,
    WHOLE,
    Kind,
    setting,
)
from cloche.errors import Position
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloche.config.kinds import Address

DEFAULT_IMAGE = "default"


@record
class SessionSettings:
    """``[session]``. Times are seconds.

    ``max_concurrent``: sessions of this user on this machine at a time; one more is refused, or waits for a place
    up to ``wait``. With ``auto_cleanup`` a session without activity for ``session_timeout`` is released; such are
    looked for every ``cleanup_interval``.
    """

    max_concurrent: int = setting(WHOLE, 4)
    wait: float = setting(DURATION_OR_NONE, 0.0)
    session_timeout: float = setting(DURATION_OF_MINUTES, 3600.0)
    cleanup_interval: float = setting(DURATION, 60.0)
    auto_cleanup: bool = setting(FLAG, default=True)


@record
class VmSettings:
    """``[vm]``: what a run's VM is when neither a flag nor the repository says. Sizes are bytes."""

    provider: str = setting(PROVIDER, "auto")
    cpus: int = setting(WHOLE, 2)
    memory: int = setting(SIZE, 2048 * MIB)
    disk: int = setting(SIZE, 16 * 1024 * MIB)
    network: str = setting(NETWORK, "user")


@record
class LimitSettings:
    """``[limits]``: the most a repository or a label may ask for; ``None`` is what ``[vm]`` gives anyway.

    ``time`` (seconds) and ``output`` (bytes of log) bound every run that no flag gives other bounds; ``None`` is
    no bound.
    """

    cpus: int | None = setting(WHOLE, None)
    memory: int | None = setting(SIZE, None)
    disk: int | None = setting(SIZE, None)
    time: float | None = setting(DURATION, None)
    output: int | None = setting(SIZE, None)


@record
class RunSettings:
    """``[run]``: how runs go that nobody told otherwise.

    With ``stop_on_failure`` the first job that fails cancels the others. ``step_timeout`` (seconds) is the limit of
    steps without ``timeout-minutes``; ``None`` is no limit but the job's.
    """

    stop_on_failure: bool = setting(FLAG, default=False)
    step_timeout: float | None = setting(DURATION, None)


@record
class CommandSettings:
    """``[setup]`` and ``[cleanup]``: a script for every job, before its first step and after its last one."""

    run: str | None = setting(TEXT, None)


@record
class Command:
    """A set-up or clean-up script: the name to show for it, and where it is written."""

    name: str
    run: str
    position: Position


@record
class PoolSettings:
    """``[pool]``: the VMs that a daemon has ready. Times are seconds.

    ``target`` VMs of each image and shape wait; after ``max_age`` without anybody asking for that shape, ``min``
    do. ``max`` is how many VMs there are at most, waiting or in use, of all shapes. A VM older than ``max_age``
    or used ``max_uses`` times is replaced. Waiting VMs are looked at every ``health_interval``. Who finds none
    waits ``allocation_timeout`` at most.
    """

    min: int = setting(COUNT, 1)
    max: int = setting(WHOLE, 8)
    target: int = setting(COUNT, 1)
    max_age: float = setting(DURATION, 3600.0)
    max_uses: int = setting(WHOLE, 100)
    health_interval: float = setting(DURATION, 30.0)
    allocation_timeout: float = setting(DURATION, 120.0)
    strategy: str = setting(STRATEGY, "first-available")


@record
class ImageSettings:
    """``[image]``. ``host_ca``: images take the host's certificate authorities; ``mirror``: Debian's."""

    host_ca: bool = setting(FLAG, default=False)
    mirror: str | None = setting(TEXT, None)


@record
class MetricsSettings:
    """``[metrics]``. ``listen``: where the daemon serves its metrics; ``None`` is nowhere."""

    listen: Address | None = setting(ADDRESS, None)


@record
class SnapshotSettings:
    """``[snapshots]``: before which steps runs are kept as they are.

    ``never``, ``on-failure`` (before each step until it succeeds) or ``each-step``. A run that failed is kept for
    ``keep_failed`` seconds; all of them take ``size`` bytes at most, the oldest going first.
    """

    mode: str = setting(SNAPSHOTS, "never")
    keep_failed: float = setting(DURATION, 24 * 3600.0)
    size: int = setting(SIZE, 16 * 1024 * MIB)


@record
class Settings:
    """Everything the operator configured, and what a repository asked as far as it is allowed.

    ``runs_on`` maps labels (lower case, ``*`` allowed) to images. ``asked`` are the repository's own ``setup`` and
    ``cleanup``.
    """

    session: SessionSettings = field(default_factory=SessionSettings)
    vm: VmSettings = field(default_factory=VmSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    image: ImageSettings = field(default_factory=ImageSettings)
    pool: PoolSettings = field(default_factory=PoolSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    run: RunSettings = field(default_factory=RunSettings)
    snapshots: SnapshotSettings = field(default_factory=SnapshotSettings)
    setup: CommandSettings = field(default_factory=CommandSettings)
    cleanup: CommandSettings = field(default_factory=CommandSettings)
    runs_on: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, Command] = field(default_factory=dict)

    @property
    def setups(self) -> tuple[Command, ...]:
        """The scripts before a job's first step: the operator's, then the repository's."""
        return self._commands("setup", "Set up")

    @property
    def cleanups(self) -> tuple[Command, ...]:
        """The scripts after a job's last step: the repository's, then the operator's."""
        return self._commands("cleanup", "Clean up")[::-1]

    def _commands(self, section: str, title: str) -> tuple[Command, ...]:
        ours: CommandSettings = getattr(self, section)
        found = [Command(title, ours.run, Position(f"[{section}] run", 1, 1))] if ours.run else []
        return (*found, *([self.asked[section]] if section in self.asked else []))

    def allowed(self, key: str) -> Any:
        """Return the most of ``cpus``, ``memory``, … that may be asked for; ``None`` without bound."""
        limit = getattr(self.limits, key)
        return getattr(self.vm, key, None) if limit is None else limit

    def image_for(self, labels: Sequence[str], default: str = DEFAULT_IMAGE) -> str | None:
        """Tell the image that serves a job's ``runs-on`` labels; ``None`` when none serves them all.

        ``default`` serves ``ubuntu-*`` where the operator says nothing else. Labels are compared without
        case, as GitHub does. ``self-hosted``, ``linux``, this machine's architecture and labels of a size
        (``cloche-4cpu``) say nothing about the image.
        """
        from cloche.workflow.runson import size_of

        neutral = _neutral_labels()
        telling = [label.lower() for label in labels if label.lower() not in neutral and not size_of(label)]
        images = {self._image_of(label, default) for label in telling}
        if not images:
            return default if labels else None
        return images.pop() if len(images) == 1 else None

    def _image_of(self, label: str, default: str) -> str | None:
        if label in self.runs_on:
            return self.runs_on[label]
        for pattern, image in self.runs_on.items():
            if fnmatch.fnmatchcase(label, pattern):
                return image
        foreign = label.endswith("-arm") and "arm64" not in _neutral_labels()  # GitHub's ubuntu-24.04-arm
        return default if label.startswith("ubuntu-") and not foreign else None


def _neutral_labels() -> set[str]:
    machine = os.uname().machine
    return {"self-hosted", "linux", {"x86_64": "x64", "aarch64": "arm64"}.get(machine, machine)}


SECTIONS: dict[str, Any] = {
    "session": SessionSettings,
    "vm": VmSettings,
    "limits": LimitSettings,
    "image": ImageSettings,
    "pool": PoolSettings,
    "metrics": MetricsSettings,
    "run": RunSettings,
    "snapshots": SnapshotSettings,
    "setup": CommandSettings,
    "cleanup": CommandSettings,
}


def kinds(section: str) -> dict[str, Kind]:
    """List a section's keys and their kinds."""
    return {key.name: key.metadata["kind"] for key in dataclasses.fields(SECTIONS[section])}
