"""Ways in which a run of the real command line ends. Each is a function that brings one about and says what it was.

What comes after is the same for all: nothing of the run is on the host any more (``Place.assert_clean``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from cloche.config import data_dir
from tests.e2e.place import CLOCHE, DEADLINE, Ended, Place, processes, settled
from tests.e2e.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.place import Running

    Ending = Callable[[Place, Random], None]

SUCCESS, FAILED, NO_VM, INTERRUPTED = 0, 1, 3, 130
MIB = 1024 * 1024
MOST_MEMORY = 150 * MIB
"""Bytes of the host's that the command may have, whatever the guest does."""
ORPHANS = 5.0
"""Seconds in which a killed command's VM has to be gone."""

SMALL = ("--memory", "512M", "--disk", "96M")
"""A VM that is soon full."""

STEP = "- run: echo up; sleep 1000"
STEPS = f"""
- uses: actions/checkout@v4
{STEP}
- run: echo always; sleep 0.3
  if: always()
- run: echo never
"""

DEAF = """\
import signal, subprocess, sys
me, numbers = sys.argv[1], {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
if me == "parent":
    child = subprocess.Popen([sys.executable, __file__, "child"])
print(me, "is up", flush=True)
while True:
    print(me, signal.Signals(signal.sigwait(numbers)).name, flush=True)
"""

ENDINGS: dict[str, dict[str, Ending]] = {"sandbox": {}, "qemu": {}}
"""The endings of each provider, by name."""


def ending(*providers: str) -> Callable[[Ending], Ending]:
    """Add a function to the endings of these providers; of both where none is named."""

    def add(function: Ending) -> Ending:
        for provider in providers or ENDINGS:
            ENDINGS[provider][function.__name__] = function
        return function

    return add


def chance(*about: object) -> Random:
    """Chance that is the same each time for the same things."""
    return Random(" ".join(map(str, about)))  # noqa: S311 - to be repeated, not to be safe


# --- by itself


@ending()
def success(place: Place, _random: Random) -> None:
    place.steps("- uses: actions/checkout@v4\n- run: git log --oneline\n- run: echo done")
    ended = place.run("run", "--output", "jsonl")
    assert (ended.code, ended.conclusion) == (SUCCESS, "success"), ended


@ending()
def failure(place: Place, _random: Random) -> None:
    place.steps("- run: exit 7\n- run: echo never\n- run: echo always\n  if: always()")
    ended = place.run("run", "--output", "jsonl")
    assert ended.code == FAILED
    assert list(ended.steps.values()) == ["failure", "skipped", "success"]
    assert ended.of("step.finished")[0]["exit_code"] == 7


@ending()
def step_timeout(place: Place, _random: Random) -> None:
    place.steps("- name: slow\n  run: sleep 1000\n  timeout-minutes: 0.01\n- name: never\n  run: echo")
    ended = place.run("run", "--output", "jsonl")
    assert (ended.code, ended.steps) == (FAILED, {"slow": "failure", "never": "skipped"})
    assert "The action 'slow' has timed out after 0.01 minutes." in ended.messages


@ending()
def job_timeout(place: Place, _random: Random) -> None:
    steps = "- name: slow\n  run: sleep 1000\n- name: after\n  run: echo\n  if: always()"
    place.steps(steps, job="timeout-minutes: 0.02")
    ended = place.run("run", "--output", "jsonl")
    assert (ended.code, ended.steps) == (FAILED, {"slow": "cancelled", "after": "success"})
    assert any("has exceeded the maximum execution time of 0.02 minutes" in m for m in ended.messages)


@ending()
def processes_left_behind(place: Place, _random: Random) -> None:
    """A step's background processes, deaf to everything, end with the job."""
    left = "setsid sleep 1000 & (sleep 1000 &) ; nohup sleep 1000 & sudo setsid sleep 1000 &"
    place.steps(f"- run: |\n    trap '' INT TERM HUP\n    {left}")
    ended = place.run("run", "--output", "jsonl")
    assert (ended.code, ended.conclusion) == (SUCCESS, "success")


# --- by a signal


@ending()
def interrupt_at_allocation(place: Place, _random: Random) -> None:
    place.steps(STEP)
    with place.events() as running:
        running.wait_for("run.started")
        running.signal(signal.SIGINT)
        assert_interrupted(running.end())


@ending()
def interrupt_at_checkout(place: Place, random: Random) -> None:
    in_checkout(place, random, lambda running: running.signal(signal.SIGINT))


def in_checkout(place: Place, random: Random, act: Callable[[Running], None]) -> Ended | None:
    """Act while much is being checked out."""
    (place.repository / "much").write_bytes(random.randbytes(48 * MIB))
    place.steps("- name: checkout\n  uses: actions/checkout@v4\n- name: always\n  run: echo\n  if: always()")
    with place.events() as running:
        running.wait_for("step.started")
        act(running)
        ended = running.end()
    if ended.code == INTERRUPTED:
        assert_interrupted(ended)
        assert ended.steps == {"checkout": "cancelled", "always": "success"}
    return ended


@ending()
def interrupt_at_step(place: Place, _random: Random) -> None:
    place.steps(STEPS)
    with place.events() as running:
        running.wait_for("step.output", text="up")
        running.signal(signal.SIGINT)
        ended = running.end()
    assert_interrupted(ended)
    assert list(ended.steps.values()) == ["success", "cancelled", "success", "skipped"]


@ending()
def interrupt_of_a_deaf_step(place: Place, _random: Random) -> None:
    """Every process of a step gets SIGINT, after 7.5 seconds SIGTERM, and after 2.5 more SIGKILL."""
    place.write("deaf.py", DEAF)
    place.steps("- uses: actions/checkout@v4\n- run: exec python3 deaf.py parent")
    with place.events() as running:
        for name in ("parent", "child"):
            running.wait_for("step.output", text=f"{name} is up")
        running.signal(signal.SIGINT)
        ended = running.end()
    assert_interrupted(ended)
    heard = {
        line: event["at"] for event in ended.of("step.output", step=2) for line in event["text"].split("\n")
    }
    assert {"parent SIGINT", "child SIGINT", "parent SIGTERM", "child SIGTERM"} < heard.keys()
    asked, finished = heard["child SIGINT"], ended.of("step.finished")[-1]
    assert finished["exit_code"] == 128 + signal.SIGKILL
    assert heard["child SIGTERM"] - asked == pytest.approx(7.5, abs=2)
    assert finished["at"] - asked == pytest.approx(10, abs=3)


@ending()
def interrupt_at_always(place: Place, _random: Random) -> None:
    """What asks for ``always()`` is not cancelled by the first Ctrl-C that comes while it runs."""
    place.steps("- run: 'false'\n- run: echo up; sleep 0.5; echo to the end\n  if: always()")
    with place.events() as running:
        running.wait_for("step.output", text="up")
        running.signal(signal.SIGINT)
        ended = running.end()
    assert_interrupted(ended)
    assert "to the end" in ended.output()


@ending()
def interrupt_twice(place: Place, _random: Random) -> None:
    """The second Ctrl-C stops at once, whatever the steps would like."""
    place.steps(
        "- run: trap '' INT TERM; echo up; while :; do sleep 0.2; done\n- run: echo a\n  if: always()"
    )
    with place.events() as running:
        running.wait_for("step.output", text="up")
        running.signal(signal.SIGINT)
        wait_until_told(running, "cancelling")
        asked = time.monotonic()
        running.signal(signal.SIGINT)
        ended = running.end()
    assert_interrupted(ended)
    assert time.monotonic() - asked < 5
    assert "a\n" not in ended.output()


@ending()
def interrupt_of_several(place: Place, _random: Random) -> None:
    """One Ctrl-C is for all runs of a command; a third that waits for a place never begins."""
    for name in ("one", "two", "three"):
        place.steps(STEP, name=f"{name}.yml")
    with place.events(env={"CLOCHE_SESSION_MAX_CONCURRENT": "2"}) as running:
        for _ in range(2):
            running.wait_for("step.output", text="up")
        running.signal(signal.SIGINT)
        ended = running.end()
    assert ended.code == INTERRUPTED
    assert [event["conclusion"] for event in ended.of("run.finished")] == ["cancelled"] * 2


@ending()
def interrupt_of_a_busy_writer(place: Place, _random: Random) -> None:
    """Stopped at once while a step makes files as fast as it can."""
    place.steps("- run: |\n    trap '' INT TERM\n    echo up; while :; do : > $RANDOM-$RANDOM; done")
    with place.events() as running:
        running.wait_for("step.output", text="up")
        for _ in range(2):
            running.signal(signal.SIGINT)
            wait_until_told(running, "cancelling")
        assert_interrupted(running.end())


@ending()
def terminate(place: Place, _random: Random) -> None:
    place.steps(STEPS)
    with place.events() as running:
        running.wait_for("step.output", text="up")
        running.signal(signal.SIGTERM)
        ended = running.end()
    assert_interrupted(ended)
    assert "always" in ended.output()


@ending()
def hang_up(place: Place, _random: Random) -> None:
    """The terminal goes away: SIGHUP, and nobody to tell anything any more."""
    place.steps("- name: waits\n  run: echo up; sleep 1000")
    with Terminal(place) as terminal:
        terminal.wait_for(" up\r\n")
        terminal.hang_up()
        assert terminal.process.wait(DEADLINE) == INTERRUPTED


@ending()
def interrupt_at_the_terminal(place: Place, _random: Random) -> None:
    """Ctrl-C is typed; the terminal is left as it was found."""
    place.steps("- name: waits\n  run: echo up; sleep 1000")
    with Terminal(place) as terminal:
        terminal.wait_for(" up\r\n")
        terminal.type("\x03")
        code, said = terminal.end()
    assert code == INTERRUPTED
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h"), "the cursor stays hidden"


def interrupt_at_random(place: Place, random: Random) -> None:
    """One to three signals at any moments, from the first line of Cloche's to the last."""
    place.steps("- uses: actions/checkout@v4\n- run: sleep 0.3\n- run: sleep 0.3\n  if: always()")
    longest = 4.0 if place.provider == "qemu" else 1.2
    with place.events() as running:
        for _ in range(random.randint(1, 3)):
            time.sleep(random.uniform(0, longest))
            if running.process.poll() is None:
                running.signal(random.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
        ended = running.end()
    started = "run.started" in ended.stdout
    assert ended.code in {SUCCESS, INTERRUPTED} or not started, ended.stderr
    assert "Traceback" not in ended.stderr or not started, ended.stderr
    assert not started or len(ended.of("run.finished")) == 1


def wait_until_told(running: Running, text: str) -> None:
    """Wait until the command has said ``text`` on standard error."""
    left = settled(lambda: [] if text in running.stderr else ["not yet"], DEADLINE)
    assert not left, running.stderr


def assert_interrupted(ended: Ended) -> None:
    assert (ended.code, ended.conclusion) == (INTERRUPTED, "cancelled"), ended.stderr
    assert "Traceback" not in ended.stderr


# --- by kill -9


@ending()
def kill_at_allocation(place: Place, random: Random) -> None:
    place.steps(STEP)
    with place.events() as running:
        running.wait_for("run.started")
        time.sleep(random.uniform(0, 0.15))
        running.kill()
        running.end()
    cleared(place, random)


@ending()
def kill_at_checkout(place: Place, random: Random) -> None:
    in_checkout(place, random, lambda running: running.kill())
    cleared(place, random)


@ending()
def kill_at_step(place: Place, random: Random) -> None:
    place.steps("- run: setsid sleep 1000 & trap '' INT TERM; echo up; sleep 1000")
    with place.events() as running:
        running.wait_for("step.output", text="up")
        running.kill()
        running.end()
    cleared(place, random)


@ending()
def kill_while_cancelling(place: Place, random: Random) -> None:
    place.steps(STEPS)
    with place.events() as running:
        running.wait_for("step.output", text="up")
        running.signal(signal.SIGINT)
        running.wait_for("step.output", text="always")
        running.kill()
        running.end()
    cleared(place, random)


def kill_at_random(place: Place, random: Random) -> None:
    place.steps("- uses: actions/checkout@v4\n- run: sleep 0.3\n- run: echo $RANDOM\n- run: sleep 0.3")
    longest = 5.0 if place.provider == "qemu" else 1.5
    with place.events() as running:
        time.sleep(random.uniform(0, longest))
        running.kill()
        running.end()
    cleared(place, random)


for _endings in ENDINGS.values():
    for _number in range(1, 7):
        _endings[f"kill_at_random_{_number}"] = kill_at_random
        _endings[f"interrupt_at_random_{_number}"] = interrupt_at_random


def cleared(place: Place, random: Random) -> None:
    """No process outlives a killed command by long, and the next command clears its files."""
    place.assert_no_process(ORPHANS)
    if random.random() < 0.5:
        nothing = {"XDG_DATA_HOME": str(place.folder / "home")}  # this machine's own images are not at stake
        assert place.run("gc", env=nothing).code == SUCCESS
    else:
        place.steps("- run: echo hello")
        assert place.run("run", "--vm", "fake").code == SUCCESS


@ending("qemu")
def kill_while_making_a_template(place: Place, random: Random) -> None:
    """What is half made is never used, and gone when the next run has made it anew."""
    templates = own_templates(place)
    place.steps("- run: echo hello")
    with place.events() as running:
        wait_until_told(running, "making the template")
        time.sleep(random.uniform(0, 3))
        running.kill()
        running.end()
    place.assert_no_process(ORPHANS)
    assert place.run("run").code == SUCCESS
    assert len([path for path in templates.iterdir() if path.is_dir()]) == 1


@ending("qemu")
def interrupt_while_making_a_template(place: Place, random: Random) -> None:
    templates = own_templates(place)
    place.steps("- run: echo never")
    with place.events() as running:
        wait_until_told(running, "making the template")
        time.sleep(random.uniform(0, 3))
        running.signal(signal.SIGINT)
        assert_interrupted(running.end(within=10))
    assert not [path for path in templates.iterdir() if path.is_dir()]


def own_templates(place: Place) -> Path:
    """Give the place templates of its own, none yet; images stay this machine's."""
    mine = place.folder / "data" / "cloche"
    mine.mkdir(parents=True)
    for path in data_dir().iterdir():
        if path.name != "templates":
            (mine / path.name).symlink_to(path)
    place.env["XDG_DATA_HOME"] = str(mine.parent)
    return mine / "templates"


# --- by the guest


@ending()
def vm_killed(place: Place, _random: Random) -> None:
    """QEMU, or the sandbox's first process, is killed under a step."""
    place.steps("- name: killed\n  run: echo up; sleep 1000\n- name: never\n  run: echo\n  if: always()")
    with place.events() as running:
        running.wait_for("step.output", text="up")
        (vm,) = [pid for pid in vm_processes(place) if parent(pid) == running.process.pid]
        os.kill(vm, signal.SIGKILL)
        ended = running.end()
    assert_guest_lost(ended)


@ending("sandbox")
def agent_process_killed(place: Place, random: Random) -> None:
    """Some process of the sandbox is killed: its agent, what waits for it, or a job's init."""
    place.steps("- name: killed\n  run: echo up; sleep 1000")
    with place.events() as running:
        running.wait_for("step.output", text="up")
        os.kill(random.choice(vm_processes(place)), signal.SIGKILL)
        ended = running.end(30)
    assert (ended.code, ended.steps) == (FAILED, {"killed": "failure"})
    assert "Traceback" not in ended.stderr


def vm_processes(place: Place) -> list[int]:
    """QEMU, or all processes of the sandbox that are the agent's."""
    program = "qemu-system" if place.provider == "qemu" else "cloche.guest.sandbox"
    return processes(str(place.folder), program)


def parent(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return int(stat.rpartition(")")[2].split()[1])


def assert_guest_lost(ended: Ended) -> None:
    assert (ended.code, ended.steps) == (FAILED, {"killed": "failure", "never": "cancelled"}), ended
    assert any(message.startswith("The step cannot go on: ") for message in ended.messages)
    assert "Traceback" not in ended.stderr


@ending("qemu")
def guest_panic(place: Place, _random: Random) -> None:
    crash = "echo c | sudo tee /proc/sysrq-trigger"
    place.steps(f"- name: killed\n  run: {crash}\n- name: never\n  run: echo\n  if: always()")
    assert_guest_lost(place.run("run", "--output", "jsonl"))


@ending("qemu")
def guest_frozen(place: Place, _random: Random) -> None:
    """A guest that answers nothing any more is given up after a minute or so."""
    place.steps("- name: killed\n  run: echo up; sleep 1000\n- name: never\n  run: echo\n  if: always()")
    with place.events() as running:
        running.wait_for("step.output", text="up")
        (vm,) = vm_processes(place)
        os.kill(vm, signal.SIGSTOP)
        ended = running.end(120)
    assert_guest_lost(ended)


@ending("qemu")
def interrupt_of_a_frozen_guest(place: Place, _random: Random) -> None:
    """The second Ctrl-C waits for no answer of the guest's."""
    place.steps(STEPS)
    with place.events() as running:
        running.wait_for("step.output", text="up")
        (vm,) = vm_processes(place)
        os.kill(vm, signal.SIGSTOP)
        running.signal(signal.SIGINT)
        wait_until_told(running, "cancelling")
        running.signal(signal.SIGINT)
        assert_interrupted(running.end(within=10))


@ending("qemu")
def disk_full(place: Place, _random: Random) -> None:
    steps = (
        "- name: full\n  run: dd if=/dev/zero of=big bs=1M 2>&1\n"
        "- name: after\n  run: echo still here\n  if: always()"
    )
    place.steps(steps)
    ended = place.run("run", "--output", "jsonl", *SMALL)
    assert ended.code == FAILED
    assert ended.steps["full"] == "failure"
    assert "No space left on device" in ended.output() + "".join(ended.messages)


@ending("qemu")
def out_of_memory(place: Place, _random: Random) -> None:
    steps = "- name: greedy\n  run: tail /dev/zero\n- name: after\n  run: echo still here\n  if: always()"
    place.steps(steps)
    ended = place.run("run", "--output", "jsonl", *SMALL)
    assert (ended.code, ended.steps) == (FAILED, {"greedy": "failure", "after": "success"})
    assert any("killed because the job ran out of memory" in message for message in ended.messages)
    assert ended.one("limit.reached")["which"] == "memory"


@ending("qemu")
def fork_bomb(place: Place, _random: Random) -> None:
    bomb = "- name: bomb\n  run: |\n    bomb() { bomb | bomb & }; bomb; sleep 1000\n  timeout-minutes: 0.1\n"
    place.steps(f"{bomb}- name: after\n  run: echo still here\n  if: always()")
    ended = place.run("run", "--output", "jsonl", *SMALL)
    assert (ended.code, ended.steps) == (FAILED, {"bomb": "failure", "after": "success"})


# --- by what it writes


@ending()
def flood(place: Place, _random: Random) -> None:
    """A step writes 64 MiB: all arrive, and the host's memory stays flat."""
    write(place, 64 * MIB)


def flood_of_a_gigabyte(place: Place, _random: Random) -> None:
    """As a flood, for those who have the time."""
    write(place, 1024 * MIB, within=600)


def write(place: Place, size: int, *, within: float = DEADLINE) -> None:
    place.steps(
        f"- run: yes 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde | head -c {size}"
    )
    with place.events(keep_output=False) as running:
        ended = running.end(within)
    assert (ended.code, ended.conclusion) == (SUCCESS, "success")
    assert running.written == size
    assert 0 < ended.peak < MOST_MEMORY, f"{ended.peak / MIB:.0f} MiB"


@ending()
def reader_gone(place: Place, _random: Random) -> None:
    """``| head -1``: the run goes on to its end, quietly."""
    place.steps("- run: for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.05; done")
    with place.start("run", "--output", "plain") as running:
        running.close_stdout_after_a_line()
        ended = running.end()
    assert ended.code == SUCCESS
    assert "Traceback" not in ended.stderr
    assert "BrokenPipe" not in ended.stderr


@ending()
def no_standard_streams(place: Place, _random: Random) -> None:
    """``<&- >&- 2>&-``: started with everything closed."""
    place.steps("- run: echo hello > it; test -s it")
    command = f'exec "$0" run --vm {place.provider} --env "PLACE={place.folder}" <&- >&- 2>&-'
    ended = subprocess.run(
        ["sh", "-c", command, CLOCHE], cwd=place.repository, env=place.env, timeout=DEADLINE, check=False
    )
    assert ended.returncode == SUCCESS


@ending()
def frozen_and_forgotten(place: Place, random: Random) -> None:
    """A step that stopped itself ends like any other."""
    place.steps("- run: echo up; kill -STOP $$")
    with place.events() as running:
        running.wait_for("step.output", text="up")
        running.signal(random.choice([signal.SIGINT, signal.SIGTERM]))
        assert_interrupted(running.end())
