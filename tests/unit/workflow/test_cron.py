"""Cron expressions GitHub takes."""

from __future__ import annotations

import pytest

from cloche.workflow.cron import is_cron


@pytest.mark.parametrize(
    "text",
    ["* * * * *", "0 */12 * * *", "5,15 0-6/2 1 jan-MAR sun", "30 5 * * 1,3", "0  0 * * *", "59 23 31 12 6"],
)
def test_good(text: str) -> None:
    assert is_cron(text)


@pytest.mark.parametrize(
    "text",
    """
    |@daily|* * * *|* * * * * *|60 * * * *|* 24 * * *|* * 0 * *|* * * 13 *|* * * * 7|*/0 * * * *|5-1 * * * *
    |1, * * * *|a * * * *|1/ * * * *|-1 * * * *|² * * * *|*/-1 * * * *|1-2-3 * * * *|1/2/3 * * * *
    """.replace("\n    ", "").split("|"),
)
def test_bad(text: str) -> None:
    assert not is_cron(text)
