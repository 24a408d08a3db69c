"""The VMs that sessions get: made on demand, or ready before anyone asks."""

from cloche.pool.events import Observer, PoolEvent, PoolStats
from cloche.pool.pool import VmPool

__all__ = ["Observer", "PoolEvent", "PoolStats", "VmPool"]
