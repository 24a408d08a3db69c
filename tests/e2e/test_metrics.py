"""Metrics of a run, written to a file, and of a daemon, served."""

from __future__ import annotations

import socket
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.daemon import Daemon
from tests.e2e.place import Place, lacking, settled

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Each sample's value by its name and the values of its labels."""
    families = text_string_to_metric_families(text)
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

    found = samples(file.read_text())
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
    assert samples(file.read_text())["vm_session_refusals_total",] == 1


def test_a_folder_that_is_not_there_is_said_before_anything_runs(place: Place) -> None:
    place.steps("- run: echo one")
    ended = place.run("run", "--output", "jsonl", "--metrics-file", "nowhere/cloche.prom")
    assert (ended.code, ended.events) == (2, [])
    assert "cannot write metrics to nowhere/cloche.prom: there is no such folder" in ended.stderr


@pytest.mark.sandbox
def test_a_daemon_serves_what_its_pool_and_its_runs_do(tmp_path: Path) -> None:
    if reason := lacking("sandbox"):
        pytest.skip(reason)
    place = Place(tmp_path / "place", "sandbox")
    place.steps("- run: echo one")
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    place.env["CLOCHE_METRICS_LISTEN"] = f"127.0.0.1:{port}"
    with Daemon(place):
        file = tmp_path / "cloche.prom"
        assert place.run("run", "--metrics-file", str(file)).code == 0
        found_there = settled_samples(port)
    assert (
        samples(file.read_text())["vm_allocation_duration_seconds_count", "default", "sandbox", "warm"] == 1
    )
    assert found_there["vm_allocation_total", "success", "warm"] == 1
    assert found_there["vm_pool_hits_total", "sandbox"] == 1
    assert found_there["vm_active_sessions",] == 0
    assert found_there["workflow_execution_duration_seconds_count", "success"] == 1
    place.assert_clean()


@pytest.mark.sandbox
def test_an_address_that_is_taken_is_said_and_no_daemon_stays(tmp_path: Path) -> None:
    if reason := lacking("sandbox"):
        pytest.skip(reason)
    place = Place(tmp_path / "place", "sandbox")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = place.run("up", "--vm", "sandbox", env={"CLOCHE_METRICS_LISTEN": address})
    assert ended.code == 1
    assert f"cannot serve metrics on {address}: " in ended.stderr
    assert "[metrics] listen" in ended.stderr
    place.assert_no_process(within=5)


def settled_samples(port: int) -> dict[tuple[str, ...], float]:
    """The samples once the run's end has been told, which is just after the command's."""

    def missing() -> list[str]:
        return (
            []
            if ("workflow_execution_duration_seconds_count", "success") in scraped(port)
            else ["the run's end"]
        )

    assert settled(missing, within=5) == []
    return scraped(port)


def scraped(port: int) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return samples(answer.read().decode())
