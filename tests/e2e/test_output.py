"""What a run of the command line says, where, and to whom."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloche.report.jsonl import event_types
from tests.e2e.place import CLOCHE, DEADLINE, one_job
from tests.e2e.terminal import Terminal

if TYPE_CHECKING:
    from tests.e2e.place import Place

TWO_STEPS = '- name: first\n  run: echo one; echo two >&2\n- name: second\n  run: echo "::warning::look"'
ESCAPE = "\x1b"
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7])(?:;\d+)*m")


def test_jsonl_is_events_and_nothing_else(place: Place) -> None:
    place.steps(TWO_STEPS)
    place.workflow(one_job("- run: exit 1", name="Other"), "other.yml")
    ended = place.run("run", "--output", "jsonl")

    known = {kind.type for kind in event_types()}
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.stdout.endswith("\n")
    assert lines == ended.events
    for event in lines:
        assert list(event)[:3] == ["type", "run_id", "at"]
        assert event["type"] in known
        assert isinstance(event["run_id"], str)
        assert isinstance(event["at"], float)
    for run_id in {event["run_id"] for event in lines}:
        run = [event["type"] for event in lines if event["run_id"] == run_id]
        assert (run[0], run[-2:]) == ("run.started", ["session.released", "run.finished"])
        assert {"session.created", "job.started", "step.started", "step.finished"} < set(run)


def test_the_fields_that_programs_rely_on(place: Place) -> None:
    place.steps(f"- id: it\n  run: echo key=value >> $GITHUB_OUTPUT\n{TWO_STEPS}")
    ended = place.run("run", "--output", "jsonl")

    session, step = ended.one("session.created"), ended.of("step.finished")[0]
    assert {"session_id", "vm_id", "provider", "source", "duration_ms"} < session.keys()
    assert session["provider"] == "fake"
    assert (step["job"], step["leg"], step["step"], step["outputs"]) == ("job", None, 1, {"key": "value"})
    assert (step["outcome"], step["conclusion"]) == ("success", "success")
    assert (step["vm_id"], step["boot_id"]) == (session["vm_id"], session["boot_id"])
    assert step["duration_ms"] >= 0
    assert ended.output(step=2) == "one\ntwo\n"
    assert ended.one("step.annotation")["level"] == "warning"
    assert ended.conclusion == "success"


def test_the_log_of_a_run(place: Place) -> None:
    place.steps(TWO_STEPS)
    ended = place.run("run", "--output", "jsonl")

    session = ended.one("session.created")
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO "
    expected = [
        rf"Allocated VM {session['vm_id']} in \d+ ms for session {session['session_id']}",
        rf"Starting workflow 'Test' for session {session['session_id']}",
        r"Executing step 1/2: first",
        r"Executing step 2/2: second",
        r"Workflow 'Test' completed successfully in \d+ms",
        rf"Released session {session['session_id']} with VM {session['vm_id']}",
    ]
    lines = ended.stderr.splitlines()
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(stamp + pattern, line), line


def test_plain_output(place: Place) -> None:
    place.steps(TWO_STEPS)
    ended = place.run("run")

    assert ended.code == 0
    for text in ("✓ 1/2 first", "    one\n", "warning: look", "✓ Test succeeded"):
        assert text in ended.stdout
    assert ESCAPE not in ended.stdout + ended.stderr


def test_quiet_says_how_it_ended_and_what_went_wrong(place: Place) -> None:
    place.steps(TWO_STEPS)
    ended = place.run("run", "-q")
    assert ended.code == 0
    assert "✓ Test succeeded" in ended.stdout
    assert "first" not in ended.stdout
    assert ended.stderr == ""

    place.steps("- name: broken\n  run: echo on the way; exit 3")
    ended = place.run("run", "-q")
    assert ended.code == 1
    assert "broken" in ended.stdout
    assert "exit code 3" in ended.stdout


def test_quiet_does_not_touch_jsonl(place: Place) -> None:
    place.steps(TWO_STEPS)
    assert place.run("run", "-q", "--output", "jsonl").output(step=1) == "one\ntwo\n"


@pytest.mark.parametrize(
    ("env", "colour", "moves"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, False, False),
    ],
)
def test_on_a_terminal(place: Place, env: dict[str, str], *, colour: bool, moves: bool) -> None:
    place.steps(TWO_STEPS)
    with Terminal(place, env=env) as terminal:
        code, said = terminal.end()
    assert code == 0
    assert "Test succeeded" in said
    assert bool(COLOUR.search(said)) == colour
    assert (f"{ESCAPE}[?25l" in said) == moves
    assert said.count(f"{ESCAPE}[?25l") == said.count(f"{ESCAPE}[?25h")
    assert "Allocated" not in said


@pytest.mark.parametrize("output", ["plain", "jsonl"])
def test_a_reader_that_leaves_does_not_end_the_run(place: Place, output: str) -> None:
    place.steps("- run: sleep 0.2; for i in 1 2 3 4 5 6 7 8 9; do echo line $i; sleep 0.02; done")
    command = '"$0" run --vm fake --output "$1" | head -n 1; echo "${PIPESTATUS[0]}"'
    ended = subprocess.run(
        ["bash", "-c", command, CLOCHE, output],
        cwd=place.repository, env=place.env, capture_output=True, text=True, timeout=DEADLINE, check=True,
    )  # fmt: skip
    assert ended.stdout.splitlines()[1:] == ["0"]
    assert "completed successfully" in ended.stderr
    assert "BrokenPipe" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_nobody_reads_either_stream(place: Place) -> None:
    place.steps("- run: for i in 1 2 3 4 5 6 7 8 9; do echo line $i; sleep 0.02; done; echo x > y; test -s y")
    reader, writer = os.pipe()
    with subprocess.Popen(
        [CLOCHE, "run", "--vm", "fake"], cwd=place.repository, env=place.env, stdout=writer, stderr=writer
    ) as process:
        os.close(writer)
        os.close(reader)
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("output", ["plain", "jsonl"])
def test_a_full_disk_under_the_output_ends_the_run_and_is_told_once(place: Place, output: str) -> None:
    place.steps(TWO_STEPS)
    with Path("/dev/full").open("wb") as full:
        ended = place.run("run", "--output", output, stdout=full)
    assert ended.code == 1
    assert ended.stderr.count("cannot write the output: No space left on device") == 1
    assert "Exception" not in ended.stderr


@pytest.mark.parametrize("command", ["run", "gc"])
def test_folders_that_cannot_be_used_are_named(place: Place, command: str) -> None:
    place.steps(TWO_STEPS)
    ended = place.run(command, env={"XDG_RUNTIME_DIR": "/dev/null/run", "XDG_STATE_HOME": "/dev/null/state"})
    assert ended.code == 2
    assert "error: cannot make /dev/null/state/cloche/run" in ended.stderr


@pytest.mark.sandbox
def test_a_folder_for_vms_that_cannot_be_made_is_named(sandbox: Place) -> None:
    sandbox.steps(TWO_STEPS)
    ended = sandbox.run("run", env={"XDG_STATE_HOME": "/dev/null/state"})
    assert ended.code == 3
    assert "/dev/null/state" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.sandbox
def test_nothing_is_left_open(sandbox: Place) -> None:
    """With Python's own checks on, neither the event loop nor the interpreter complains at the end."""
    sandbox.steps(f"- uses: actions/checkout@v4\n{TWO_STEPS}")
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "cloche.cli", "run", "--vm", "sandbox", "-q"]
    ended = subprocess.run(
        command, cwd=sandbox.repository, env=sandbox.env, capture_output=True, text=True, timeout=DEADLINE, check=False
    )  # fmt: skip
    complaints = [line for line in ended.stderr.splitlines() if " took " not in line]  # a busy machine's
    assert (ended.returncode, complaints) == (0, [])


def test_interrupted_before_anything_began(place: Place) -> None:
    """Ctrl-C while git is asked about the repository: no traceback, 130."""
    place.steps("- run: echo never")
    tools = place.folder / "home" / "bin"
    tools.mkdir()
    git = tools / "git"
    git.write_text("#!/bin/sh\nkill -INT $PPID\nsleep 60\n")
    git.chmod(0o755)
    with place.start("run", env={"PATH": f"{tools}:{place.env['PATH']}"}) as running:
        ended = running.end()
        os.killpg(running.process.pid, signal.SIGKILL)
    assert ended.code == 130
    assert "Traceback" not in ended.stderr
    assert "Allocated" not in ended.stderr
