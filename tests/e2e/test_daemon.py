"""The daemon and its thin client: the same as without, and nothing is left, whoever is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.e2e.daemon import Daemon
from tests.e2e.gate import Gate
from tests.e2e.place import settled
from tests.e2e.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.place import Place

pytestmark = pytest.mark.sandbox

ALONE = {"CLOCHE_NO_DAEMON": "1"}
WAITS = "- name: waits\n  run: echo up; sleep 1000"
SUCCESS, FAILED, USAGE, NO_VM, INTERRUPTED = 0, 1, 2, 3, 130
NOT_UP = 3


@pytest.fixture
def daemon(sandbox: Place) -> Iterator[Daemon]:
    with Daemon(sandbox) as daemon:
        yield daemon


def same(text: str) -> str:
    """A run's output without what differs between two runs of one workflow."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}|\b[0-9a-f]{8}-[0-9a-f-]{27}\b", "#", text)
    text = re.sub(r"\b(vm|sess|run)-[0-9a-f]{12}\b", r"\1-#", text)
    text = re.sub(r"[\d.]+ ?m?s\b", "#s", text)
    return re.sub(r"(booted in|was waiting, taken in)", "made in", re.sub(r" +", " ", text))


def test_a_run_is_the_same_as_without_a_daemon(daemon: Daemon) -> None:
    place = daemon.place
    place.write("file", "from the repository\n")
    place.steps(
        "- uses: actions/checkout@v4\n- run: cat file; id -un; pwd\n"
        "- run: echo '::error file=a,line=3::wrong'; exit 7\n- run: echo always\n  if: always()",
        job="env:\n  GIVEN: ${{ vars.GIVEN }}",
    )
    here = place.run("run", "--var", "GIVEN=1", env=ALONE)
    there = place.run("run", "--var", "GIVEN=1")
    assert (there.code, same(there.stdout), same(there.stderr)) == (
        FAILED,
        same(here.stdout),
        same(here.stderr),
    )
    assert daemon.status["providers"]["sandbox"]["created"] == 1


def test_folder_environment_and_streams_are_the_clients(daemon: Daemon) -> None:
    place = daemon.place
    place.steps(
        '- run: test "$TOKEN" = hidden && echo ${{ secrets.TOKEN }}\n  env:\n    TOKEN: ${{ secrets.TOKEN }}'
    )
    folder = place.repository / "inner"
    folder.mkdir()
    ended = place.run("run", "-s", "TOKEN", "--output", "jsonl", env={"TOKEN": "hidden"}, cwd=folder)
    assert (ended.code, ended.output()) == (SUCCESS, "***\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("nowhere.yml",), USAGE),
        (("--no-such-option",), USAGE),
        (("--help",), SUCCESS),
        (("--image", "none"), NO_VM),
    ],
)
def test_bad_input_is_told_as_without_a_daemon(daemon: Daemon, arguments: tuple[str, ...], code: int) -> None:
    daemon.place.steps("- run: echo")
    here, there = (daemon.place.run("run", *arguments, env=env) for env in (ALONE, {}))
    assert (there.code, same(there.stdout), same(there.stderr)) == (
        here.code,
        same(here.stdout),
        same(here.stderr),
    )
    assert there.code == code


def test_the_session_limit_is_one_for_all(daemon: Daemon) -> None:
    place = daemon.place
    one = {"CLOCHE_SESSION_MAX_CONCURRENT": "1"}
    place.steps(WAITS)
    with place.events() as running:
        running.wait_for("step.output", text="up")
        for env in (one, {**one, **ALONE}):
            ended = place.run("run", env=env)
            assert ended.code == NO_VM
            assert "the limit of 1 concurrent session is reached" in ended.stderr
        running.signal(signal.SIGINT)
        assert running.end().code == INTERRUPTED


def test_several_at_once(daemon: Daemon) -> None:
    place = daemon.place
    with Gate() as gate:
        place.steps(f"- run: |\n    {gate.script('sandbox')}\n    cat /etc/machine-id")
        running = [place.events() for _ in range(3)]
        gate.wait_for(3)
        assert len({session["vm"] for session in daemon.status["sessions"]}) == 3
        gate.open()
        seen = []
        for one in running:
            with one:
                seen.append(one.end().output())
    assert len(set(seen)) == 3
    daemon.assert_idle()


def test_a_terminal_has_the_live_display(daemon: Daemon) -> None:
    daemon.place.steps("- run: echo hello; sleep 0.3")
    with Terminal(daemon.place) as terminal:
        code, said = terminal.end()
    assert code == SUCCESS
    assert "\x1b[?25l" in said, "no live display"


def test_ctrl_c(daemon: Daemon) -> None:
    daemon.place.steps(WAITS)
    with Terminal(daemon.place) as terminal:
        terminal.wait_for(" up\r\n")
        terminal.type("\x03")
        code, said = terminal.end()
    assert code == INTERRUPTED
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h")
    daemon.assert_idle()


def test_a_killed_client_takes_its_run_with_it(daemon: Daemon) -> None:
    daemon.place.steps(f"{WAITS}\n- run: sleep 1000\n  if: always()")
    with daemon.place.events() as running:
        running.wait_for("step.output", text="up")
        assert daemon.workers
        running.kill()
        running.end()
    daemon.assert_idle()
    assert not settled(lambda: [str(pid) for pid in daemon.workers], 5)


def test_a_killed_run_gives_its_vm_back(daemon: Daemon) -> None:
    daemon.place.steps(WAITS)
    with daemon.place.events() as running:
        running.wait_for("step.output", text="up")
        (worker,) = daemon.workers
        os.kill(worker, signal.SIGKILL)
        ended = running.end()
    assert ended.code == NO_VM
    assert "ended without a word" in ended.stderr
    daemon.assert_idle()
    daemon.place.steps("- run: echo hello")
    assert daemon.place.run("run").code == SUCCESS


def test_a_killed_runner_is_replaced_and_its_runs_go_on(daemon: Daemon) -> None:
    place = daemon.place
    with Gate() as gate:
        place.steps(f"- run: {gate.script('sandbox')}")
        with place.events() as running:
            gate.wait_for(1)
            killed = daemon.runner
            os.kill(killed, signal.SIGKILL)
            gate.open()
            assert running.end().code == SUCCESS
    place.steps("- run: echo hello")
    assert place.run("run").code == SUCCESS
    assert daemon.runner != killed


def test_a_killed_daemon_takes_its_vms_with_it_and_can_be_started_again(daemon: Daemon) -> None:
    place = daemon.place
    place.steps(WAITS)
    with place.events() as running:
        running.wait_for("step.output", text="up")
        daemon.kill()
        ended = running.end()
    assert ended.code == FAILED, ended.stderr
    place.assert_no_process(5)
    assert place.run("status").code == NOT_UP
    place.steps("- run: echo hello")
    assert place.run("run").code == SUCCESS, "without a daemon"
    daemon.up()
    assert place.run("run").code == SUCCESS
    assert daemon.status["providers"]["sandbox"]["created"] == 1


def test_down_waits_for_runs(daemon: Daemon) -> None:
    place = daemon.place
    with Gate() as gate:
        place.steps(f"- run: {gate.script('sandbox')}")
        with place.events() as running:
            gate.wait_for(1)
            with place.start("down") as down:
                assert not settled(lambda: [] if daemon.status["draining"] else ["not yet"], 20)
                assert down.process.poll() is None
                gate.open()
                assert running.end().code == SUCCESS
                assert down.end().code == SUCCESS
    assert place.run("status").code == NOT_UP


def test_down_now_ends_runs(daemon: Daemon) -> None:
    place = daemon.place
    place.steps(WAITS)
    with place.events() as running:
        running.wait_for("step.output", text="up")
        assert place.run("down", "--now").code == SUCCESS
        assert running.end().code == FAILED


def test_there_is_one_daemon(daemon: Daemon) -> None:
    ended = daemon.place.run("up", "--vm", "sandbox")
    assert ended.code == USAGE
    assert "a daemon of yours is up already" in ended.stderr
    assert daemon.status["up"]


def test_it_lends_to_nobody_else_and_keeps_no_streams(daemon: Daemon) -> None:
    folder = daemon.place.folder / "runtime/cloche/daemon"
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in (folder, *folder.glob("*.sock"))} == {
        "daemon": "0o700",
        "control.sock": "0o600",
        "run.sock": "0o600",
    }
    streams = {os.readlink(f"/proc/{daemon.pid}/fd/{number}") for number in range(3)}  # noqa: PTH115 - not of this process
    assert streams == {"/dev/null"}


def test_what_cannot_be_kept_ready_is_said_at_once(sandbox: Place) -> None:
    ended = sandbox.run("up", "--vm", "fake")
    assert ended.code == USAGE
    assert "cannot be lent" in ended.stderr
    assert sandbox.run("status").code == NOT_UP
    for path in (*sandbox.folder.rglob("daemon.log"), *sandbox.folder.rglob("daemon/lock")):
        path.unlink()


def test_in_the_foreground_it_ends_with_a_signal(sandbox: Place) -> None:
    with sandbox.start("up", "--vm", "sandbox", "--foreground") as running:
        assert not settled(lambda: [] if "INFO ready" in running.stderr else ["not yet"], 20), running.stderr
        running.process.send_signal(signal.SIGTERM)
        assert running.end().code == SUCCESS
    for path in sandbox.folder.rglob("daemon/lock"):
        path.unlink()


def test_a_client_of_another_version_does_without(daemon: Daemon) -> None:
    place = daemon.place
    place.steps("- run: echo hello")
    script = (
        "import sys; from cloche.daemon import client; client.__version__ = '9';"
        " from cloche.cli import main; sys.argv = ['cloche', 'run', '--vm', 'sandbox']; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=place.repository,
        env=place.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == SUCCESS, ended.stderr
    assert daemon.status["providers"]["sandbox"]["created"] == 0
