"""Kills at moments of chance while cuts are made and gone on from, for longer than the suite has time for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.endings import chance
from tests.e2e.keeping import Killed, runs_of_its_own
from tests.e2e.place import Place, lacking
from tests.soak.conftest import SEED

if TYPE_CHECKING:
    from pathlib import Path

STEPS = """
- run: echo one > /tmp/one; head -c 3000000 /dev/urandom > /tmp/a
- run: echo two >> /tmp/one
- run: test "$(wc -l < /tmp/one)" = 2
- run: exit 1
"""


@pytest.mark.soak
@pytest.mark.vm
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("provider", "rounds", "longest"), [("sandbox", 40, 1.2), ("qemu", 20, 6.0)])
def test_kills(tmp_path: Path, provider: str, rounds: int, longest: float) -> None:
    if reason := lacking(provider):
        pytest.skip(reason)
    place = Place(tmp_path / "place", provider)
    place.steps(STEPS)
    with runs_of_its_own(place):
        Killed(place, chance(SEED, provider, "rewind"), "--snapshot", "each-step", env={}).rounds(
            rounds, longest
        )
        place.steps("- run: 'true'")
        assert place.run("run").code == 0, "the next run clears the rest"
        place.assert_clean()
