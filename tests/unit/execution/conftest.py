"""What the tests of this room share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def conformance() -> Callable[[str], list[dict[str, Any]]]:
    """Read a file of the conformance data; skips the test where there is none."""
    folder = os.environ.get("CLOCHE_CONFORMANCE")

    def load(name: str) -> list[dict[str, Any]]:
        if not folder:
            pytest.skip("CLOCHE_CONFORMANCE names no folder of conformance data")
        rows: list[dict[str, Any]] = json.loads(Path(folder, name).read_text("utf-8"))
        return rows

    return load
