"""Every way in which a run ends, one after another, in an order of chance; ``make soak`` runs it.

``CLOCHE_SOAK_SEED`` repeats an order and every moment that was left to chance; without it each day has its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.endings import ENDINGS, chance, flood_of_a_gigabyte
from tests.e2e.place import Place, lacking, traces
from tests.soak.conftest import SEED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL = [
    *((provider, name) for provider, endings in ENDINGS.items() for name in endings),
    *((provider, "flood_of_a_gigabyte") for provider in ENDINGS),
]


@pytest.mark.soak
@pytest.mark.vm
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("provider", "name"), chance(SEED).sample(ALL, len(ALL)))
def test_an_ending(tmp_path: Path, provider: str, name: str) -> None:
    if reason := lacking(provider):
        pytest.skip(reason)
    place = Place(tmp_path / "place", provider)
    ending = ENDINGS[provider].get(name, flood_of_a_gigabyte)
    ending(place, chance(SEED, provider, name))
    place.assert_clean()


@pytest.fixture(scope="module", autouse=True)
def _nothing_at_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """After all of them no process, mount or socket of this machine knows any of their folders."""
    yield
    assert traces(str(tmp_path_factory.getbasetemp())) == []
