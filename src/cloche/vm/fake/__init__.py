"""VMs in memory: deterministic, instant, shipped. ``--vm fake`` shows a workflow and pretends to run it."""

from cloche.vm.fake.provider import FakeGuest, FakeProvider, FakeRoot, FakeVm
from cloche.vm.fake.streams import Call

__all__ = ["Call", "FakeGuest", "FakeProvider", "FakeRoot", "FakeVm"]
