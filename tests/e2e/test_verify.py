"""``cloche verify`` from the command line: what it says, writes and ends with."""

from __future__ import annotations

import json
import signal
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.place import Place, lacking, settled

if TYPE_CHECKING:
    from tests.e2e.place import Running

ROOT = Path(__file__).parents[2]
PLUGIN = """
from tests.unit.verify.cheats import OneForAll, OtherName

def shared(note):
    note("one VM for all")
    return OneForAll()

def misnamed(note):
    return OtherName()
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


@pytest.fixture
def plugin(place: Place) -> Place:
    """A place in which another package adds providers."""
    info = place.folder / "plugins" / "cheats-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cheats\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[cloche.providers]\nshared = cheat_plugin:shared\nmisnamed = cheat_plugin:misnamed\n"
    )
    (info.parent / "cheat_plugin.py").write_text(PLUGIN)
    place.env["PYTHONPATH"] = f"{info.parent}:{ROOT}"
    return place


@pytest.fixture
def sandbox(tmp_path: Path) -> Place:
    if reason := lacking("sandbox"):
        pytest.skip(reason)
    return Place(tmp_path / "place", "sandbox")


def test_it_passes_and_says_what_it_measured(place: Place) -> None:
    ended = place.run("verify", "--vm", "fake")
    assert ended.code == 0
    for line in ("T1 passed: one workflow of 5 steps", "Compliance", "fake: nothing really ran."):
        assert line in ended.stdout
    assert "PASSED: all 6 requirements hold" in ended.stdout
    assert ended.stderr == ""
    place.assert_clean()


def test_the_json_report_is_alone_on_standard_output(place: Place) -> None:
    ended = place.run("verify", "--vm", "fake", "--workflows", "5", "--output", "json")
    told = json.loads(ended.stdout)
    assert (ended.code, told["schema"], told["passed"]) == (0, "cloche.verification/1", True)
    assert "T4 passed" in ended.stderr
    assert [one["id"] for one in told["scenarios"]] == ["T1", "T2", "T3", "T4"]
    t2 = told["scenarios"][1]
    assert {key: t2[key] for key in ("workflows", "steps", "allocations", "vm_ids", "boot_ids", "sessions")} == {
        "workflows": 5, "steps": 23, "allocations": 5, "vm_ids": 5, "boot_ids": 5, "sessions": 5,
    }  # fmt: skip
    assert [one["id"] for one in told["requirements"]] == ["R1", "R2", "R3", "R4", "R5", "R6"]
    assert told["machine"]["each VM"] == "2 vCPUs, 2 GiB of memory, network user"


def test_the_report_has_the_form_of_its_name(place: Place) -> None:
    assert place.run("verify", "--vm", "fake", "--report", "report.html").code == 0
    text = (place.repository / "report.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert "PASSED: all 6 requirements hold" in text
    page = Fetched()
    page.feed(text)
    assert page.addresses == [], "nothing is fetched"


class Fetched(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_a_report_that_cannot_be_written_is_said_before_anything_runs(place: Place) -> None:
    ended = place.run("verify", "--vm", "fake", "--report", "nowhere/report.md")
    assert (ended.code, ended.stdout) == (2, "")
    assert "cannot write the report to nowhere/report.md: there is no such folder" in ended.stderr


@pytest.mark.parametrize(
    ("name", "requirement", "claim"),
    [
        ("shared", "R4", "no other workflow saw the same boot id"),
        ("misnamed", "R2", "the guest calls itself by the VM's id (hostname)"),
    ],
)
def test_another_packages_provider_that_cheats_is_named(
    plugin: Place, name: str, requirement: str, claim: str
) -> None:
    ended = plugin.run("verify", "--vm", name, "--output", "json")
    assert ended.code == 1
    assert f"{requirement} fails in T2: {claim}" in ended.stderr
    told = json.loads(ended.stdout)
    assert not told["passed"]
    assert requirement in {one["id"] for one in told["requirements"] if not one["passed"]}
    plugin.assert_clean()


def test_without_any_vm_there_is_nothing_to_judge(place: Place) -> None:
    ended = place.run("verify", "--vm", "sandbox", env={"XDG_DATA_HOME": str(place.folder / "empty")})
    assert ended.code == 3
    assert "cloche image build" in ended.stderr
    assert "PASSED" not in ended.stdout
    assert "FAILED" not in ended.stdout


@pytest.mark.sandbox
def test_sandboxes_pass_by_the_evidence_there_is(sandbox: Place) -> None:
    ended = sandbox.run("verify", "--vm", "sandbox")
    assert ended.code == 0, ended
    assert "sandbox: there is no VM." in ended.stdout
    sandbox.assert_clean()


@pytest.mark.sandbox
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing(sandbox: Place, number: int) -> None:
    with sandbox.start("verify", "--vm", "sandbox") as running:
        assert settled(lambda: missing(running, "T1 passed"), within=60) == []
        running.signal(number)
        ended = running.end()
    assert ended.code == 130
    assert "T4" not in ended.stdout
    sandbox.assert_clean()


def missing(running: Running, line: str) -> list[str]:
    return [] if any(line in said for said in running._lines) else [line]
