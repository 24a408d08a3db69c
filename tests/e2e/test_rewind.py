"""``cloche rewind`` and ``cloche runs`` as people use them."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.endings import chance
from tests.e2e.keeping import listed, runs_of_its_own
from tests.e2e.place import Ended, Place, lacking

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

STEPS = """
- uses: actions/checkout@v4
- run: echo made > made; echo "SET=by a step" >> "$GITHUB_ENV"
- name: Test
  run: test "$(cat file)" = fixed; cat made; echo "$SET $TOKEN"
  env: {TOKEN: "${{ secrets.TOKEN }}"}
- run: echo the end
"""


@pytest.fixture(params=["fake", pytest.param("sandbox", marks=pytest.mark.sandbox)])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    if reason := lacking(request.param):
        pytest.skip(reason)
    made = Place(tmp_path / "place", request.param)
    made.write("file", "broken\n")
    made.steps(STEPS)
    made.commit("broken")
    with runs_of_its_own(made):
        yield made
        made.assert_clean()


def fail(place: Place, *arguments: str) -> str:
    """Have a run fail at its third step; its id."""
    ended = place.run("run", "--output", "jsonl", "-s", "TOKEN", *arguments, env={"TOKEN": "sesame"})
    assert ended.code == 1, ended
    return str(ended.one("run.kept")["run_id"])


def rewind(place: Place, *arguments: str) -> Ended:
    return place.run("rewind", "--output", "jsonl", *arguments)


def test_the_file_is_mended_and_the_run_goes_on(place: Place) -> None:
    run = fail(place, "--snapshot", "on-failure")
    (told,) = listed(place)
    assert (told["run"], told["conclusion"], told["live"]) == (run, "failure", False)
    assert [(cut["to"], cut["name"], cut["failed"]) for cut in told["cuts"]] == [("job/3", "Test", True)]
    assert 23 * 3600 < told["until"] - time.time() < 25 * 3600
    place.write("file", "fixed\n")
    ended = rewind(place, "last")
    assert ended.code == 0, ended
    assert ended.steps == {"Test": "success", "Run echo the end": "success"}
    assert ended.output() == "made\nby a step ***\nthe end\n"
    rewound = ended.one("run.rewound")
    assert (rewound["of"], rewound["step"], rewound["files"]) == (run, 3, 1)
    assert "sesame" not in ended.stdout + ended.stderr
    assert [told["run"] for told in listed(place)] == [run]


def test_what_has_run_must_be_what_it_was(place: Place) -> None:
    run = fail(place, "--snapshot", "each-step")
    place.steps(STEPS.replace("echo made >", "echo otherwise >"))
    ended = rewind(place, run)
    assert ended.code == 2, ended
    assert "test.yml:8:9: the `run` of step 2 of job 'job' has been changed" in ended.stderr
    assert f"cloche rewind {run} --to 'job/2'" in ended.stderr
    place.write("file", "fixed\n")
    place.steps(STEPS.replace("echo made >", "echo otherwise >"))
    ended = rewind(place, run, "--to", "job/2")
    assert ended.code == 0, ended
    assert "otherwise" in ended.output()


def test_a_step_is_named_in_any_way(place: Place) -> None:
    run = fail(place, "--snapshot", "each-step")
    for to in ("job/3", "job/Test"):
        assert rewind(place, run[:8], "--to", to).one("run.rewound")["step"] == 3
    ended = rewind(place, run, "--to", "job/4")
    assert ended.code == 2
    assert "it was before job/1, job/2, job/3" in ended.stderr


def test_by_configuration_and_for_people(place: Place) -> None:
    config = place.folder / "config/cloche"
    config.mkdir(parents=True)
    (config / "config.toml").write_text('[snapshots]\nmode = "on-failure"\nkeep_failed = "1h"\n')
    ended = place.run("run", "--output", "plain", "-s", "TOKEN", env={"TOKEN": "sesame"})
    (told,) = listed(place)
    assert f"go on from before step 3 of job job: cloche rewind {told['run']}" in ended.stdout
    shown = place.run("runs").stdout
    assert f"{told['run']} · 'Test'" in shown
    assert "failure" in shown
    assert "for 1 h 0 min more" in shown or "for 59 min" in shown
    assert "before job/3 'Test', which failed" in shown
    assert "never" not in place.run("run", "--snapshot", "never", "-s", "TOKEN", env={"TOKEN": "x"}).stdout
    assert len(listed(place)) == 1


def test_what_there_is_not_is_said(place: Place) -> None:
    ended = rewind(place, "last")
    assert (ended.code, "there is no run to go on with" in ended.stderr) == (2, True)
    assert "no run can go on" in place.run("runs").stdout
    run = fail(place, "--snapshot", "on-failure")
    (place.repository / ".github/workflows/test.yml").unlink()
    ended = rewind(place, run)
    assert (ended.code, "cannot read" in ended.stderr) == (2, True)


def test_a_cut_of_another_format_is_refused_by_its_number(place: Place) -> None:
    run = fail(place, "--snapshot", "on-failure")
    (path,) = (_runs(place) / run).glob("*/checkpoint.json")
    path.write_text('{"version": 99}')
    ended = rewind(place, run)
    assert ended.code == 3, ended
    assert "format 99" in ended.stderr


def test_a_full_disk_is_told_and_the_run_goes_on(place: Place) -> None:
    """A file where the folder of new cuts should be stands for what cannot be written."""
    _runs(place).parent.mkdir(exist_ok=True)
    _runs(place).write_text("")
    ended = place.run(
        "run", "--output", "jsonl", "--snapshot", "on-failure", "-s", "TOKEN", env={"TOKEN": "x"}
    )
    assert (ended.code, ended.conclusion) == (1, "failure")
    assert any(message.startswith("No snapshots are made of this run") for message in ended.messages)
    assert "Traceback" not in ended.stderr
    _runs(place).unlink()


def _runs(place: Place) -> Path:
    from pathlib import Path

    return Path(place.env["XDG_DATA_HOME"], "cloche/runs")


ROUNDS = 4


def test_killed_at_any_moment_no_half_cut_is_offered_and_nothing_is_left(place: Place) -> None:
    moments = chance("rewind")
    for _ in range(ROUNDS):
        kill_after(place, moments, ("run", "--snapshot", "each-step", "-s", "TOKEN"))
        if runs := listed(place):
            cut = moments.choice(runs[0]["cuts"])
            ended = rewind(place, runs[0]["run"], "--to", cut["to"])
            assert (ended.code, ended.one("run.rewound")["step"]) == (1, cut["step"]), ended
            kill_after(place, moments, ("rewind", runs[0]["run"]))
    found = listed(place)
    assert [told["run"] for told in found if told["live"]] == []
    assert {path.name for path in _runs(place).iterdir()} == {told["run"] for told in found}
    for told in found:
        there = {path.name for path in (_runs(place) / told["run"]).iterdir()} - {".new", ".gone"}
        assert len(there) == len(told["cuts"]) + len(("run.json", "lock"))
    place.write("file", "fixed\n")
    assert place.run("run", "-s", "TOKEN", env={"TOKEN": "x"}).code == 0, "the next run clears the rest"


def kill_after(place: Place, moments: random.Random, command: tuple[str, ...]) -> None:
    """Start a command and kill it, and only it, somewhere in its life."""
    with place.start(*command, "--output", "jsonl", env={"TOKEN": "sesame"}) as running:
        time.sleep(moments.uniform(0.1, 1.2))
        if running.process.poll() is None:
            os.kill(running.process.pid, signal.SIGKILL)
        ended: Any = running.end()
        assert "Traceback" not in ended.stderr
