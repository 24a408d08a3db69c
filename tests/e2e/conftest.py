"""Places for the tests of the command line; each is looked over when its test is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.place import Place, lacking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place whose VMs are fakes."""
    made = Place(tmp_path / "place")
    yield made
    made.assert_clean()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Place]:
    """A place whose VMs are sandboxes; the test needs the mark of that name."""
    if reason := lacking("sandbox"):
        pytest.skip(reason)
    made = Place(tmp_path / "place", "sandbox")
    yield made
    made.assert_clean()
