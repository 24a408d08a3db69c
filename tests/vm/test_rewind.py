"""Runs in real guests that go on: memory, processes and all that jobs and steps had told each other are there."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.endings import chance
from tests.e2e.keeping import listed, runs_of_its_own
from tests.e2e.place import Place, lacking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.place import Ended, Event

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]
SMALL = ("--memory", "1GiB", "--cpus", "1")
SECRET = {"TOKEN": "sesame"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if reason := lacking("qemu"):
        pytest.skip(reason)
    made = Place(tmp_path / "place", "qemu")
    with runs_of_its_own(made):
        yield made
        made.assert_clean()


def run(place: Place, *arguments: str) -> Ended:
    return place.run("run", "--output", "jsonl", *SMALL, "-s", "TOKEN", *arguments, env=SECRET)


def rewind(place: Place, *arguments: str) -> Ended:
    return place.run("rewind", "--output", "jsonl", *arguments)


DEMONSTRATION = """
- uses: actions/checkout@v4
- name: Expensive
  run: |
    date +%s%N > /dev/shm/memory
    (while sleep 0.1; do date +%s > /tmp/beat; done) > /dev/null 2>&1 & echo $! > /tmp/pid
- name: Build
  run: cat file > built
- name: Test
  run: |
    cat /dev/shm/memory; kill -0 "$(cat /tmp/pid)"
    rm -f /tmp/beat; until test -s /tmp/beat; do sleep 0.05; done
    echo "boot $(cat /proc/sys/kernel/random/boot_id) $(hostname) at $(date +%s)"
    grep fixed file
"""


def test_the_demonstration(place: Place) -> None:
    place.write("file", "broken\n")
    place.steps(DEMONSTRATION)
    place.commit("broken")
    failed = run(place, "--snapshot", "on-failure")
    assert failed.code == 1, failed
    place.write("file", "fixed\n")
    for _ in range(2):  # what is kept is never written to
        ended = rewind(place, "last")
        assert ended.code == 0, ended.stdout
        assert ended.steps == {"Test": "success"}, "nothing that had run ran again"
        assert ended.output().splitlines()[0] == failed.output(step=4).splitlines()[0], (
            "memory of the first step"
        )
        session, before = ended.one("session.created"), failed.one("session.created")
        assert [session[name] for name in ("vm_id", "boot_id")] == [before[n] for n in ("vm_id", "boot_id")]
        _, boot, name, _, at = ended.output().splitlines()[1].split()
        assert (boot, name) == (session["boot_id"], session["vm_id"]), "as the guest says itself"
        assert abs(int(at) - time.time()) < 30, "its clock is right"
        assert {step["boot_id"] for step in ended.of("step.finished")} == {boot}


JOBS = """
name: Jobs
on: push
jobs:
  make:
    runs-on: ubuntu-latest
    outputs: {made: "${{ steps.make.outputs.made }}"}
    steps:
      - id: make
        run: |
          echo made=here >> "$GITHUB_OUTPUT"
          echo "::add-mask::hidden"
          echo "SET=by a step" >> "$GITHUB_ENV"
      - run: echo "$SET, hidden, ${{ secrets.TOKEN }}"
  legs:
    needs: make
    runs-on: ubuntu-latest
    strategy: {matrix: {n: [1, 2]}}
    steps:
      - uses: actions/checkout@v4
      - id: own
        run: |
          echo "own=leg ${{ matrix.n }}" >> "$GITHUB_ENV"; echo /opt/leg >> "$GITHUB_PATH"
          echo changed by a step > step; echo tmpfs > /dev/shm/b
      - run: |
          test "${{ matrix.n }}" = 1 || grep fixed file
          echo "$own ${PATH%%:*} $(cat step) $(cat /dev/shm/b) ${{ needs.make.outputs.made }} hidden $TOKEN"
        env: {TOKEN: "${{ secrets.TOKEN }}"}
  last:
    needs: [make, legs]
    runs-on: ubuntu-latest
    steps:
      - run: echo "${{ needs.legs.result }} ${{ needs.make.outputs.made }} hidden"
"""
_DIFFERS = {
    "run_id", "at", "duration_ms", "session_id", "vm_id", "boot_id", "usage", "size", "paused_ms",
}  # fmt: skip


def after(events: list[Event], job: str, leg: str | None, step: int) -> list[dict[str, Any]]:
    """What was told from the cut before a step on, but for times and ids."""
    plain = [{name: value for name, value in event.items() if name not in _DIFFERS} for event in events]
    cut = {"type": "snapshot.taken", "job": job, "leg": leg, "step": step}
    return plain[plain.index(cut) :]


def test_what_comes_out_is_what_a_run_from_the_beginning_comes_to(place: Place) -> None:
    place.write("file", "broken\n")
    place.workflow(JOBS)
    place.commit("broken")
    assert run(place, "--snapshot", "on-failure").code == 1
    place.write("file", "fixed\n")
    ended = rewind(place, "last")
    assert ended.code == 0, ended.stdout
    assert ended.one("run.rewound")["done"] == {"make": "success", "legs (1)": "success"}
    anew = run(place, "--snapshot", "on-failure")
    assert anew.code == 0, anew
    assert after(ended.events, "legs", "2", 3) == after(anew.events, "legs", "2", 3)
    assert ended.output() == "fixed\nleg 2 /opt/leg changed by a step tmpfs here *** ***\nsuccess here ***\n"


KILLED = """
- run: head -c 3000000 /dev/urandom > /tmp/a; sync
- run: head -c 3000000 /dev/urandom > /tmp/b; sync
- run: test -s /tmp/a && test -s /tmp/b
- run: sleep 100
"""


def test_killed_whenever_only_whole_cuts_are_offered(place: Place) -> None:
    """Kill Cloche as it makes cuts, and again as it goes on: what is listed goes on, and nothing else is left."""
    place.steps(KILLED)
    moments = chance("rewind-vm")
    for _ in range(2):
        with place.start("run", "--output", "jsonl", *SMALL, "--snapshot", "each-step") as running:
            running.wait_for("snapshot.taken", step=1)
            time.sleep(moments.uniform(0, 1.5))
            kill(running.process.pid)
            running.end()
        told = listed(place)[0]
        with place.start("rewind", "--output", "jsonl", told["run"], "--to", told["cuts"][-1]["to"]) as going:
            time.sleep(moments.uniform(0.5, 2.0))
            kill(going.process.pid)
            going.end()
    told = listed(place)[0]
    cut = told["cuts"][0]
    with place.start("rewind", "--output", "jsonl", told["run"], "--to", cut["to"]) as going:
        assert going.wait_for("run.rewound")["step"] == cut["step"]
        going.wait_for("step.started", step=4)
        going.signal(signal.SIGINT)
        going.signal(signal.SIGINT)
        assert going.end().code == 130
    place.steps("- run: 'true'")
    assert run(place).code == 0, "the next run clears what kills left"


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
