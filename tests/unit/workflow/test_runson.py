"""Labels of an evaluated runs-on."""

from __future__ import annotations

import pytest

from cloche.workflow.runson import RunsOnError, labels


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ubuntu-latest", ("ubuntu-latest",)),
        (["self-hosted", "linux"], ("self-hosted", "linux")),
        ({"labels": ["gpu", 24.0]}, ("gpu", "24")),
        ({"labels": "gpu", "group": ""}, ("gpu",)),
    ],
)
def test_labels(value: object, expected: tuple[str, ...]) -> None:
    assert labels(value) == expected


@pytest.mark.parametrize(
    "value", [None, "", [], [""], {}, {"labels": None}, [["a"]], {"group": "g", "labels": "x"}]
)
def test_no_label_or_a_group_is_refused(value: object) -> None:
    with pytest.raises(RunsOnError, match="runs-on"):
        labels(value)
