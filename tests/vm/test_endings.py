"""However a run in a real guest ends, nothing of it is left. More of this, and longer: tests/soak."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.endings import ENDINGS, chance
from tests.e2e.place import Place, lacking

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.vm
@pytest.mark.parametrize(
    "name",
    [
        "interrupt_at_step",
        "interrupt_twice",
        "interrupt_of_a_frozen_guest",
        "kill_at_allocation",
        "kill_at_step",
        "vm_killed",
        "guest_panic",
        "disk_full",
        "out_of_memory",
        "fork_bomb",
        "flood",
    ],
)
def test_an_ending(tmp_path: Path, name: str) -> None:
    if reason := lacking("qemu"):
        pytest.skip(reason)
    place = Place(tmp_path / "place", "qemu")
    ENDINGS["qemu"][name](place, chance(name))
    place.assert_clean()
