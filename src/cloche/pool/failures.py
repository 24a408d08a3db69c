"""What a pool says when it cannot do what it is asked for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cloche.errors import ClocheError, ImageError, ProviderError

if TYPE_CHECKING:
    from cloche.pool.events import Reason
    from cloche.vm.provider import Vm


class PoolClosed(ProviderError):  # noqa: N818 - what happened
    """VMs were asked of a pool that is being closed."""


def closed() -> PoolClosed:
    """What to raise for who asks a pool that is being closed."""
    return PoolClosed("the pool is being closed")


def did_not_end(vm: Vm, timeout: float) -> ProviderError:
    """What to raise for a VM that a provider could not end within ``timeout`` seconds."""
    return ProviderError(
        f"VM {vm.id} did not end within {timeout:g} s",
        hint="`cloche gc` removes what is left of it once this process has ended",
    )


def reason_of(error: BaseException) -> Reason:
    """The word for why an allocation failed."""
    kinds: list[tuple[type[BaseException], Reason]] = [
        (TimeoutError, "timeout"),
        (asyncio.CancelledError, "cancelled"),
        (PoolClosed, "closed"),
        (ImageError, "image"),
    ]
    return next((word for kind, word in kinds if isinstance(error, kind)), "provider")


def words(error: BaseException) -> str:
    """What an error says, and of what kind it is where it is none of ours."""
    return error.message if isinstance(error, ClocheError) else f"{type(error).__name__}: {error}"
