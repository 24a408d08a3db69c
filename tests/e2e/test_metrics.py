"""``cloche run --metrics-file``: what it writes, whatever came of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.place import Place

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


def samples(path: Path) -> dict[tuple[str, ...], float]:
    """Each sample's value by its name and the values of its labels."""
    families = text_string_to_metric_families(path.read_text())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
    }


def test_two_workflows_are_counted_and_their_names_are_not(place: Place, tmp_path: Path) -> None:
    place.steps("- run: echo one", name="one.yml")
    place.steps("- run: exit 3", name="two.yml")
    file = tmp_path / "cloche.prom"

    assert place.run("run", "--metrics-file", str(file)).code == 1

    found = samples(file)
    assert found["vm_allocation_total", "success", "booted"] == 2
    assert found["vm_allocation_duration_seconds_count", "default", "fake", "booted"] == 2
    assert found["workflow_execution_duration_seconds_count", "success"] == 1
    assert found["workflow_execution_duration_seconds_count", "failure"] == 1
    assert found["vm_active_sessions",] == 0
    assert "one.yml" not in file.read_text()
    assert "Test" not in file.read_text()


def test_a_refused_session_is_counted(place: Place, tmp_path: Path) -> None:
    place.steps("- run: sleep 60")
    limit = {"CLOCHE_SESSION_MAX_CONCURRENT": "1"}
    file = tmp_path / "cloche.prom"
    with place.events(env=limit) as first:
        first.wait_for("step.started")
        assert place.run("run", "--metrics-file", str(file), env=limit).code == 3
    assert samples(file)["vm_session_refusals_total",] == 1


def test_a_folder_that_is_not_there_is_said_before_anything_runs(place: Place) -> None:
    place.steps("- run: echo one")
    ended = place.run("run", "--output", "jsonl", "--metrics-file", "nowhere/cloche.prom")
    assert (ended.code, ended.events) == (2, [])
    assert "cannot write metrics to nowhere/cloche.prom: there is no such folder" in ended.stderr
