"""Kinds of configuration values: how each is read, and what to tell who wrote something else."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any, NamedTuple

from cloche.units import parse_duration, parse_size

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1024 * 1024
_NEVER = 1e9
"""Seconds, some thirty years: TOML has infinities too."""
_MINUTE = 60.0
NETWORKS = ("user", "none")
SNAPSHOT_MODES = ("never", "on-failure", "each-step")
_MAX_PORT = 65535


class Kind(NamedTuple):
    """How a value is read: what to tell a user who wrote another, and the function; ValueError refuses."""

    expected: str
    read: Callable[[object], object]


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError
    return value


def _count(value: object) -> int:
    return 0 if value == 0 and not isinstance(value, bool | float) else _whole(value)


def _size(value: object) -> int:
    size = parse_size(value) if isinstance(value, str) else _whole(value)
    if size < MIB:
        raise ValueError
    return size


def _duration(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _NEVER:
        raise ValueError
    return float(value)


def _some_time(value: object) -> float:
    if (seconds := _duration(value)) < 1:
        raise ValueError
    return seconds


def _while(value: object) -> float:
    if (seconds := _duration(value)) < _MINUTE:
        raise ValueError
    return seconds


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - every kind refuses in one way
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.replace("-", "").replace("_", "").isalnum():
        raise ValueError
    return value


def _labels(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError  # noqa: TRY004 - every kind refuses in one way
    return {_text(label).lower(): _text(image) for label, image in value.items()}


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


def _address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > _MAX_PORT:
        raise ValueError
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


def _one_of(*choices: str) -> Kind:
    def read(value: object) -> str:
        if value not in choices:
            raise ValueError
        return str(value)

    return Kind("one of " + ", ".join(f'"{choice}"' for choice in choices), read)


WHOLE = Kind("a whole number of at least 1", _whole)
COUNT = Kind("a whole number, 0 or more", _count)
SIZE = Kind('a size of at least 1M, such as "512M" or "2GiB"', _size)
DURATION = Kind('a duration of at least 1s, such as "30s", "10m" or "1h30m"', _some_time)
DURATION_OR_NONE = Kind('a duration such as "30s", "10m" or "1h30m", or 0', _duration)
DURATION_OF_MINUTES = Kind('a duration of at least 1m, such as "10m" or "1h30m"', _while)
FLAG = Kind("true or false", _flag)
TEXT = Kind("a text", _text)
STRATEGY = Kind('the name of a strategy, such as "first-available"', _name)
PROVIDER = Kind('the name of a provider, such as "auto" or "qemu"', _name)
NETWORK = _one_of(*NETWORKS)
SNAPSHOTS = _one_of(*SNAPSHOT_MODES)
ADDRESS = Kind('an address and a port, such as "127.0.0.1:9464"', _address)
LABELS = Kind("a table of labels and image names, both texts", _labels)


def setting(kind: Kind, default: Any) -> Any:
    """Declare a key of a section: how it is read, and what it is when nobody says."""
    return field(default=default, metadata={"kind": kind})
