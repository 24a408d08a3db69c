"""Whatever is killed, and whenever, no VM is shared, none is lost, and the pool comes back by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.endings import chance
from tests.e2e.kills import Kills

if TYPE_CHECKING:
    from tests.e2e.place import Place

ROUNDS = 16


@pytest.mark.sandbox
def test_kills_at_any_moment(sandbox: Place) -> None:
    Kills(sandbox, chance("kills")).rounds(ROUNDS)
