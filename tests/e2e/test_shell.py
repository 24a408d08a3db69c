"""Looking inside: a shell at a step that failed, in a run that goes on, and in a VM that is kept."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.keeping import listed, runs_of_its_own
from tests.e2e.place import DEADLINE, Place, settled
from tests.e2e.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.sandbox

FAILING = """
- run: mkdir -p sub && echo "LATER=from-step-one" >> $GITHUB_ENV
- name: Break
  run: echo broken; exit 3
  working-directory: sub
  env: {OWN: mine}
- if: always()
  run: echo "always after $(cat mark 2>/dev/null)"
"""
WAITING = """
- name: Wait
  run: |
    echo "up as $OWN"
    until [ -e go ]; do sleep 0.1; done
    echo "went on"
  env: {OWN: mine}
"""


def wait_for_door(place: Place) -> None:
    """A run opens its door a moment after its first step began."""
    doors = place.folder / "runtime/cloche/doors"
    assert not settled(lambda: [] if [*doors.glob("*")] else ["no door"], DEADLINE)


@pytest.fixture
def daemon(sandbox: Place) -> Iterator[Daemon]:
    with Daemon(sandbox) as made:
        yield made
        made.assert_idle()


@pytest.fixture(params=["alone", "daemon"])
def place(request: pytest.FixtureRequest, sandbox: Place) -> Iterator[Place]:
    """A place where sandboxes are the daemon's, and one without a daemon."""
    if request.param == "alone":
        yield sandbox
        return
    with Daemon(sandbox):
        yield sandbox


# At a step that failed


def test_a_shell_where_the_step_failed(place: Place) -> None:
    place.steps(FAILING)
    with Terminal(place, "--on-failure", "shell") as terminal:
        terminal.wait_for("'Break' failed in 'job'")
        terminal.wait_for("cloche:")
        terminal.wait_for("$ ")
        assert terminal.is_raw
        terminal.type("echo $OWN $LATER ${PWD##*/} $(tput cols) $TERM; tty\n")
        terminal.wait_for("mine from-step-one sub 80 xterm\r\n/dev/pts/")
        terminal.resize(50, 132)
        terminal.type("sh -c 'echo o\"n\"e; exec sleep 1000'\n")
        terminal.wait_for("\rone")
        terminal.type("\x03")
        terminal.type("echo code $? $(tput cols)\n")
        terminal.wait_for("code 130 132")
        terminal.type("sh -c 'echo t\"w\"o; exec sleep 1000'\n")
        terminal.wait_for("\rtwo")
        terminal.type("\x1a")
        terminal.wait_for("Stopped")
        terminal.type("kill -9 %1; disown -a; echo touched > ../mark; exit\n")
        terminal.wait_for("the run goes on")
        code, said = terminal.end()
    assert code == 1
    assert "always after touched" in said
    assert not said.endswith("\x1b[?25l")


def test_a_killed_terminal_ends_the_shell_and_the_run(place: Place) -> None:
    place.steps(FAILING)
    with Terminal(place, "--on-failure", "shell") as terminal:
        terminal.wait_for("$ ")
        terminal.hang_up()
        terminal.process.wait(DEADLINE)


def test_a_step_without_its_folder(sandbox: Place) -> None:
    sandbox.steps("- run: 'true'\n  working-directory: missing")
    with Terminal(sandbox, "--on-failure", "shell") as terminal:
        terminal.wait_for("missing")
        terminal.wait_for("$ ")
        terminal.type("pwd; exit\n")
        terminal.wait_for("\r/\r\n")
        assert terminal.end()[0] == 1


def test_two_jobs_that_fail_have_the_terminal_one_after_the_other(sandbox: Place) -> None:
    sandbox.steps("- run: exit 3", job="strategy: {matrix: {n: [1, 2]}, fail-fast: false}")
    with Terminal(sandbox, "--on-failure", "shell", "--output", "plain") as terminal:
        for _ in range(2):
            terminal.wait_for("failed in 'job (")
            terminal.wait_for("$ ")
            terminal.forget()
            terminal.type("exit\n")
            terminal.wait_for("the run goes on")
        assert terminal.end()[0] == 1


def test_a_killed_worker_gives_the_terminal_back(daemon: Daemon) -> None:
    daemon.place.steps(FAILING)
    with Terminal(daemon.place, "--on-failure", "shell") as terminal:
        terminal.wait_for("$ ")
        (worker,) = daemon.workers
        os.kill(worker, signal.SIGKILL)
        terminal.wait_for("ended without a word")
        assert not terminal.is_raw
        terminal.end()


def test_a_terminated_run_gives_the_terminal_back(sandbox: Place) -> None:
    sandbox.steps(FAILING)
    with Terminal(sandbox, "--on-failure", "shell") as terminal:
        terminal.wait_for("$ ")
        assert terminal.is_raw
        terminal.process.send_signal(signal.SIGTERM)
        terminal.wait_for("the job has been cancelled")
        code, _ = terminal.end()
    assert code == 130


def test_without_a_terminal_a_shell_is_refused_up_front(sandbox: Place) -> None:
    sandbox.steps(FAILING)
    ended = sandbox.run("run", "--on-failure", "shell")
    assert ended.code == 2
    assert "needs a terminal" in ended.stderr
    assert "--on-failure keep" in ended.stderr
    assert "Allocated" not in ended.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [("keep", "needs the daemon"), ("sleep", "cannot be 'sleep'"), ("keep=soon", "keep=soon")],
)
def test_what_cannot_be_is_refused_up_front(sandbox: Place, asked: str, said: str) -> None:
    sandbox.steps(FAILING)
    ended = sandbox.run("run", "--on-failure", asked)
    assert ended.code == 2
    assert said in ended.stderr
    assert "Allocated" not in ended.stderr


def test_a_shell_before_a_run_goes_on_again(sandbox: Place) -> None:
    sandbox.steps(FAILING)
    with runs_of_its_own(sandbox):
        assert sandbox.run("run", "--snapshot", "on-failure").code == 1
        refused = sandbox.run("rewind", "last", "--shell")
        assert refused.code == 2
        assert "--shell needs a terminal" in refused.stderr
        with Terminal(sandbox, "last", "--shell", command="rewind") as terminal:
            terminal.wait_for("'Break' of 'job' comes next")
            terminal.wait_for("$ ")
            terminal.type("echo $OWN $LATER ${PWD##*/}; echo touched > ../mark; exit\n")
            terminal.wait_for("mine from-step-one sub")
            code, said = terminal.end()
    assert code == 1
    assert "always after touched" in said.rpartition("the run goes on")[2]


def test_a_shell_is_in_no_snapshots_way(sandbox: Place) -> None:
    sandbox.steps(FAILING)
    with runs_of_its_own(sandbox):
        with Terminal(sandbox, "--on-failure", "shell", "--snapshot", "each-step") as terminal:
            terminal.wait_for("$ ")
            terminal.type("exit\n")
            code, said = terminal.end()
        assert code == 1
        assert "No more snapshots" not in said
        assert [cut["to"] for told in listed(sandbox) for cut in told["cuts"]] == ["job/1", "job/2", "job/3"]


# In a run that goes on


def test_a_shell_in_a_run_that_goes_on(place: Place) -> None:
    place.steps(WAITING)
    with place.events() as running:
        run = running.wait_for("run.started")["run_id"]
        running.wait_for("step.output", text="up as mine")
        wait_for_door(place)
        with Terminal(place, run[:8], command="shell") as terminal:
            terminal.wait_for("at 'Wait'")
            terminal.wait_for("$ ")
            terminal.resize(50, 132)
            terminal.type('until [ "$(tput cols)" = 132 ]; do sleep 0.1; done; echo I am $OWN; exit 5\n')
            terminal.wait_for("I am mine")
            assert terminal.end()[0] == 5
        with Terminal(place, command="shell") as terminal:
            terminal.wait_for("$ ")
            terminal.type("touch go\n")
            ended = running.end()
            terminal.wait_for("has ended")
            assert not terminal.is_raw
            assert terminal.end()[0] == 1
    assert ended.code == 0
    assert "went on" in ended.stdout


def test_commands_by_a_pipe(sandbox: Place, tmp_path: Path) -> None:
    sandbox.steps(WAITING)
    with sandbox.events() as running:
        running.wait_for("step.output", text="up as mine")
        wait_for_door(sandbox)
        ended = sandbox.run("shell", stdin="echo from $OWN; touch go; exit 4\n")
        assert (ended.code, ended.stdout) == (4, "from mine\n")
        assert running.end().code == 0


def test_nobody_is_let_into_a_run_that_keeps_snapshots(sandbox: Place) -> None:
    sandbox.steps("- run: echo up; sleep 1000")
    with runs_of_its_own(sandbox), sandbox.events("--snapshot", "on-failure") as running:
        running.wait_for("step.output", text="up")
        wait_for_door(sandbox)
        ended = sandbox.run("shell", stdin="touch go\n")
        assert ended.code == 2
        assert "keeps snapshots" in ended.stderr
        assert "cloche rewind" in ended.stderr
        running.signal(signal.SIGINT)
        assert running.end().code == 130


def test_what_can_be_entered_is_listed(sandbox: Place) -> None:
    ended = sandbox.run("shell")
    assert ended.code == 2
    assert "no run to look into" in ended.stderr
    sandbox.steps(WAITING, job="strategy: {matrix: {n: [1, 2]}}")
    with sandbox.events() as running:
        for _ in range(2):
            running.wait_for("step.output", text="up as mine")
        wait_for_door(sandbox)
        ended = sandbox.run("shell")
        assert ended.code == 2
        assert "job (1)" in ended.stderr
        ended = sandbox.run("shell", "nothing-like-it")
        assert "--job 'job (2)' · Wait" in ended.stderr
        for leg in (1, 2):
            ended = sandbox.run("shell", "--job", f"job ({leg})", stdin="touch go\n")
            assert ended.code == 0, ended
        assert running.end().code == 0


# In a VM that is kept


def test_a_vm_is_kept_for_a_shell(daemon: Daemon) -> None:
    place = daemon.place
    place.steps(FAILING)
    ended = place.run("run", "--on-failure", "keep=10m", "--output", "jsonl")
    assert ended.code == 1
    assert [
        event["message"]
        for event in ended.events
        if event["type"] == "run.notice" and "is kept" in event["message"]
    ]
    run = ended.events[0]["run_id"]
    (kept,) = daemon.status["sessions"]
    assert (kept["run"], kept["pid"]) == (run, None)
    assert f"cloche shell {run}" in place.run("status").stdout
    ended = place.run("shell", stdin="echo $OWN $LATER ${PWD##*/}; echo mark > ../mark\n")
    assert (ended.code, ended.stdout) == (0, "mine from-step-one sub\n")
    with Terminal(place, run, command="shell") as terminal:
        terminal.wait_for("$ ")
        terminal.type("cat ../mark; tty\n")
        terminal.wait_for("/dev/pts/")
        assert place.run("shell", "--end").code == 0
        terminal.wait_for("kept no longer")
        assert terminal.end()[0] == 1
    assert not settled(lambda: daemon.status["sessions"], DEADLINE)


def test_a_kept_vm_is_a_session_among_the_others(daemon: Daemon) -> None:
    place, env = daemon.place, {"CLOCHE_SESSION_MAX_CONCURRENT": "1"}
    place.steps(FAILING)
    assert place.run("run", "--on-failure", "keep", env=env).code == 1
    refused = place.run("run", env=env)
    assert refused.code == 3
    assert "limit" in refused.stderr
    assert place.run("shell", "--end").code == 0
    assert place.run("run", env=env).code == 1


def test_a_run_that_is_killed_at_its_end_leaves_nothing(daemon: Daemon) -> None:
    """Whoever owns the VM at that moment, the run's process or the daemon, somebody does."""
    daemon.place.steps(FAILING)
    with daemon.place.events("--on-failure", "keep=2s") as running:
        running.wait_for("job.finished")
        running.kill()
    assert not settled(lambda: daemon.status["sessions"], DEADLINE)


def test_a_kept_vm_goes_when_its_time_is_up(daemon: Daemon) -> None:
    daemon.place.steps(FAILING)
    assert daemon.place.run("run", "--on-failure", "keep=1s").code == 1
    assert not settled(lambda: daemon.status["sessions"], DEADLINE)


def test_only_runs_that_failed_are_kept(daemon: Daemon) -> None:
    daemon.place.steps("- run: 'true'")
    assert daemon.place.run("run", "--on-failure", "keep").code == 0
    daemon.place.steps(FAILING, job="continue-on-error: true")
    assert daemon.place.run("run", "--on-failure", "keep").code == 0
    assert daemon.status["sessions"] == []


@pytest.mark.parametrize("killed", [False, True])
def test_a_vm_that_is_kept_ends_with_the_daemon(sandbox: Place, *, killed: bool) -> None:
    with Daemon(sandbox) as daemon:
        sandbox.steps(FAILING)
        sandbox.run("run", "--on-failure", "keep")
        if killed:
            daemon.kill()
            sandbox.assert_no_process(DEADLINE / 10)
            assert sandbox.run("gc").code == 0
            for path in sandbox.folder.rglob("*.sock"):
                path.unlink()  # the next daemon's to clear
    assert "no run to look into" in sandbox.run("shell").stderr
