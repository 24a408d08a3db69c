from __future__ import annotations

import pytest

from cloche.cli.visiting import NOTHING, OnFailure, check_terminal, read_on_failure
from cloche.errors import UsageError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (None, NOTHING),
        ("shell", OnFailure(let_in=True)),
        ("keep", OnFailure(keep=1800.0)),
        ("keep=90s", OnFailure(keep=90.0)),
        ("keep=1h30m", OnFailure(keep=5400.0)),
    ],
)
def test_what_is_wanted(text: str | None, meant: OnFailure) -> None:
    assert read_on_failure(text) == meant


@pytest.mark.parametrize(
    "text", ["", "keep=", "keep=soon", "keep=0s", "keep=25h", "Shell", "shell=1", "rollback "]
)
def test_what_cannot_be_wanted(text: str) -> None:
    with pytest.raises(UsageError, match="--on-failure") as caught:
        read_on_failure(text)
    assert caught.value.hint


def test_the_fake_has_nothing_to_type_at() -> None:
    with pytest.raises(UsageError, match="fake"):
        check_terminal(OnFailure(let_in=True), "fake")


def test_who_wants_no_shell_needs_no_terminal() -> None:
    check_terminal(NOTHING, "auto")
    check_terminal(OnFailure(keep=1.0), "fake")
