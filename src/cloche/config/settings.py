"""The operator's settings, typed, with their defaults."""

from __future__ import annotations

import dataclasses
import fnmatch
import os
from dataclasses import field
from typing import TYPE_CHECKING, Any

from cloche.config.kinds import (
    COUNT,
    DURATION,
    FLAG,
    MIB,
    NETWORK,
    PROVIDER,
    SIZE,
    STRATEGY,
    TEXT,
    WHOLE,
    Kind,
    setting,
)
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_IMAGE = "default"


@record
class SessionSettings:
    """``[session]``. ``max_concurrent``: sessions of this user on this machine at a time."""

    max_concurrent: int = setting(WHOLE, 4)


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
    """``[limits]``: the most a repository may ask for; ``None`` is what ``[vm]`` gives anyway."""

    cpus: int | None = setting(WHOLE, None)
    memory: int | None = setting(SIZE, None)


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
class Settings:
    """Everything the operator configured. ``runs_on`` maps labels (lower case, ``*`` allowed) to images."""

    session: SessionSettings = field(default_factory=SessionSettings)
    vm: VmSettings = field(default_factory=VmSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    image: ImageSettings = field(default_factory=ImageSettings)
    pool: PoolSettings = field(default_factory=PoolSettings)
    runs_on: Mapping[str, str] = field(default_factory=dict)

    def image_for(self, labels: Sequence[str], default: str = DEFAULT_IMAGE) -> str | None:
        """Tell the image that serves a job's ``runs-on`` labels; ``None`` when none serves them all.

        ``default`` serves ``ubuntu-*`` where the operator says nothing else. Labels are compared without
        case, as GitHub does. ``self-hosted``, ``linux`` and this machine's architecture say nothing about the
        image.
        """
        telling = [label.lower() for label in labels if label.lower() not in _neutral_labels()]
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
}


def kinds(section: str) -> dict[str, Kind]:
    """List a section's keys and their kinds."""
    return {key.name: key.metadata["kind"] for key in dataclasses.fields(SECTIONS[section])}
