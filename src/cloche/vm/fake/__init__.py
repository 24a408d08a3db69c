"""VMs in memory: deterministic, instant, shipped. ``--vm fake`` shows a workflow without running it for real."""

from cloche.vm.fake.provider import FakeGuest, FakeProvider, FakeRoot, FakeVm
from cloche.vm.fake.shell import Call

__all__ = ["Call", "FakeGuest", "FakeProvider", "FakeRoot", "FakeVm"]
