"""The VMs that sessions get: today made on demand and destroyed on release."""

from cloche.pool.pool import PoolStats, VmPool

__all__ = ["PoolStats", "VmPool"]
