"""However a run in a sandbox ends, nothing of it is left. The same on real guests: tests/vm/test_endings.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.endings import ENDINGS, chance

if TYPE_CHECKING:
    from tests.e2e.place import Place

LEFT_TO_THE_SOAK = {
    "frozen_and_forgotten",
    "kill_while_cancelling",
    *(f"{what}_at_random_{n}" for what in ("kill", "interrupt") for n in range(3, 7)),
}
"""What takes ten seconds, or is like something else here."""


@pytest.mark.sandbox
@pytest.mark.parametrize("name", sorted(ENDINGS["sandbox"].keys() - LEFT_TO_THE_SOAK))
def test_an_ending(sandbox: Place, name: str) -> None:
    ENDINGS["sandbox"][name](sandbox, chance(name))
    sandbox.assert_clean()
