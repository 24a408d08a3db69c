"""``cloche rewind`` and ``cloche runs`` as people use them."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.endings import chance
from tests.e2e.keeping import Killed, listed, runs_of_its_own
from tests.e2e.place import CLOCHE, Ended, Place, lacking

if TYPE_CHECKING:
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


def test_what_another_leg_ran_has_been_carried_out_too(place: Place) -> None:
    steps = "- run: echo ${{ matrix.n }}\n- run: test ${{ matrix.n }} = 1\n"
    place.steps(steps, job="strategy: {matrix: {n: [1, 2]}}")
    assert place.run("run", "--snapshot", "on-failure").code == 1
    place.steps(steps.replace("= 1", "= 2"), job="strategy: {matrix: {n: [1, 2]}}")
    ended = rewind(place, "last")
    assert ended.code == 2, ended
    assert (
        "step 2 of job 'job' has been changed since it was carried out in another leg of it" in ended.stderr
    )


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


def test_killed_at_any_moment_no_half_cut_is_offered_and_nothing_is_left(place: Place) -> None:
    Killed(place, chance("rewind"), "--snapshot", "each-step", "-s", "TOKEN", env={"TOKEN": "sesame"}).rounds(
        4, 1.2
    )
    place.write("file", "fixed\n")
    assert place.run("run", "-s", "TOKEN", env={"TOKEN": "x"}).code == 0, "the next run clears the rest"


@pytest.mark.parametrize("place", ["fake"], indirect=True)
def test_a_full_disk_ends_the_cuts_and_not_the_run(place: Place) -> None:
    """The data folder is a file system of a few pages, which only the commands in it see."""
    script = """
    mount -t tmpfs -o size=72k none "$XDG_DATA_HOME" || exit 77
    "$0" run --vm fake --output jsonl --snapshot each-step; code=$?
    "$0" runs --output json
    find "$XDG_DATA_HOME/cloche/runs" -path "*/.new/*"
    exit $code
    """
    place.steps("".join("- run: 'true'\n" for _ in range(8)) + "- run: exit 5\n")
    ended = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", script, CLOCHE],
        cwd=place.repository, env=place.env, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    if ended.returncode == 77:
        pytest.skip("no file systems can be mounted here")
    assert ended.returncode == 1, ended
    events, _, rest = ended.stdout.partition("\n[")
    assert "No more snapshots are made of this run: " in events
    assert "No space left" in events
    (told,) = json.loads(f"[{rest}")
    made = events.count('"snapshot.taken"')
    assert [cut["to"] for cut in told["cuts"]] == [f"job/{number + 1}" for number in range(made)]
    assert 0 < made < 9


@pytest.mark.sandbox
def test_a_vm_of_the_daemons_is_kept_too(tmp_path: Path) -> None:
    if reason := lacking("sandbox"):
        pytest.skip(reason)
    place = Place(tmp_path / "place", "sandbox")
    place.write("file", "broken\n")
    place.steps(STEPS)
    with runs_of_its_own(place):
        del place.env["CLOCHE_NO_DAEMON"]
        with Daemon(place):
            run = fail(place, "--snapshot", "on-failure")
            place.write("file", "fixed\n")
            ended = rewind(place, run)
            assert ended.code == 0, ended
            assert ended.steps == {"Test": "success", "Run echo the end": "success"}
        place.assert_clean()
