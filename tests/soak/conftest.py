"""The soak runs when it is asked for by its mark (``-m soak``), and is no part of anything else."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

SEED = os.environ.get("CLOCHE_SOAK_SEED") or time.strftime("%Y-%m-%d")


def pytest_report_header() -> str:
    """Say how to do it all again."""
    return f"soak: CLOCHE_SOAK_SEED={SEED}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave it out unless the expression after ``-m`` speaks of it."""
    if "soak" in config.option.markexpr:
        return
    soak = [item for item in items if item.get_closest_marker("soak")]
    items[:] = [item for item in items if item not in soak]
    config.hook.pytest_deselected(items=soak)
