"""The daemon for long: kills at 200 random moments; 500 workflows through it, and what they cost it.

``CLOCHE_SOAK_SEED`` repeats every choice that was left to chance.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.daemon import Daemon, parent
from tests.e2e.endings import chance
from tests.e2e.kills import Kills
from tests.e2e.place import Place, lacking, processes, settled
from tests.soak.conftest import SEED

pytestmark = [pytest.mark.soak, pytest.mark.vm, pytest.mark.timeout(3600)]

KILLS = {"sandbox": 150, "qemu": 50}
WORKFLOWS = {"sandbox": 400, "qemu": 100}
AT_ONCE = 3
WARM = 0.2
"""The part of the workflows after which the daemon has all the memory it is going to have."""
MOST_GROWTH = 1.15
HOW = {
    "success.yml": "- run: echo hello\n- run: echo world > file; cat file",
    "failure.yml": "- run: echo hello\n- run: exit 3\n- run: echo always\n  if: always()",
    "cancel.yml": "- run: echo up; sleep 1000",
}


@pytest.mark.parametrize("provider", KILLS)
def test_kills(tmp_path: Path, provider: str) -> None:
    if reason := lacking(provider):
        pytest.skip(reason)
    Kills(Place(tmp_path / "place", provider), chance(SEED, "kills", provider)).rounds(KILLS[provider])


@pytest.mark.parametrize("provider", WORKFLOWS)
def test_many_workflows(tmp_path: Path, provider: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Mixed success, failure and cancel: memory and open files stay as they are, and nothing is left."""
    if reason := lacking(provider):
        pytest.skip(reason)
    place = Place(tmp_path / "place", provider)
    for name, steps in HOW.items():
        place.steps(steps, name=name)
    number, random = WORKFLOWS[provider], chance(SEED, "many", provider)
    with Daemon(place) as daemon:
        names = [random.choice(sorted(HOW)) for _ in range(number)]
        early = int(number * WARM)
        _run(place, names[:early])
        before = _held(daemon)
        started = time.monotonic()
        boots = _run(place, names[early:])
        rate = len(boots) / (time.monotonic() - started)
        after = _held(daemon)
        stats = daemon.status["providers"][provider]
    place.assert_clean()
    with capsys.disabled():
        told = {
            "provider": provider,
            "workflows per second": round(rate, 2),
            "before": before,
            "after": after,
        }
        print(json.dumps(told))  # noqa: T201 - what the soak finds out, for bench/RESULTS.md
    assert len(set(boots)) == len(boots), "a VM was shared"
    assert stats["created"] == stats["released"] == number
    assert after["files"] <= before["files"] + 2, (before, after)
    assert after["memory"] < before["memory"] * MOST_GROWTH, (before, after)
    assert after["processes"] <= before["processes"] + 1, (before, after)


def _run(place: Place, names: list[str]) -> list[str]:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(lambda name: _run_one(place, name), names))


def _run_one(place: Place, name: str) -> str:
    """Run a workflow to the end that it is named for; the boot id of its VM."""
    code = {"success.yml": 0, "failure.yml": 1, "cancel.yml": 130}[name]
    with place.events(name) as running:
        if name == "cancel.yml":
            running.wait_for("step.output", text="up")
            running.signal(2)
        ended = running.end()
    assert ended.code == code, ended
    return str(ended.one("session.created")["boot_id"])


def _held(daemon: Daemon) -> dict[str, int]:
    """What the daemon holds when nothing is under way: bytes of memory of its own, open files, processes."""

    def under_way() -> list[str]:
        pool = next(iter(daemon.status["providers"].values()))["pool"]
        return [name for name in ("active", "resetting", "making", "ending") if pool[name]]

    assert not settled(under_way, 60)
    pid = daemon.pid
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    private = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return {
        "memory": int(private.split()[1]) * 1024,
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "processes": len([one for one in processes(str(daemon.place.folder)) if parent(one) == pid]),
    }
