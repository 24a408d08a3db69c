"""Labels of an evaluated runs-on."""

from __future__ import annotations

import pytest

from cloche.workflow.runson import RunsOnError, Size, labels, size_of


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


GIB = 1024**3


@pytest.mark.parametrize(
    ("label", "size"),
    [
        ("cloche-4cpu-8gb", Size(4, 8 * GIB)),
        ("cloche-8gb-4cpu", Size(4, 8 * GIB)),
        ("Cloche-2CPU", Size(2, None)),
        ("cloche-16gb", Size(None, 16 * GIB)),
    ],
)
def test_a_label_may_ask_for_a_size(label: str, size: Size) -> None:
    assert size_of(label) == size


@pytest.mark.parametrize(
    "label",
    ["cloche", "cloche-", "cloche-0cpu", "cloche-4cpus", "cloche-4cpu-8cpu", "cloche-1gb-2GB", "x-cloche-4cpu",
     "cloche-4cpu-", "cloche-4cpu-8gb-1cpu", "cloche-٣cpu", "cloche-4cpu\n", "ubuntu-latest"],
)  # fmt: skip
def test_other_labels_ask_for_none(label: str) -> None:
    assert size_of(label) is None
