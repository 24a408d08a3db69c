"""A shell in a real guest, where a step failed and in a run that goes on."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from tests.e2e.place import DEADLINE, Place, lacking, settled
from tests.e2e.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.vm

STEPS = """
- run: echo memory > /dev/shm/mark; (sleep 1000 &) ; echo "MORE=yes" >> $GITHUB_ENV
- name: Wait
  run: |
    until [ -e /tmp/go ]; do sleep 0.2; done
- name: Break
  run: exit 3
- if: always()
  run: cat /tmp/mark
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if reason := lacking("qemu"):
        pytest.skip(reason)
    made = Place(tmp_path / "place", "qemu")
    yield made
    made.assert_clean(10)


def test_a_shell_in_a_real_guest(place: Place) -> None:
    """Into the run while it goes on, which lets it go on; then where the step failed, with the same memory."""
    place.steps(STEPS)
    doors = place.folder / "runtime/cloche/doors"
    with Terminal(place, "--on-failure", "shell", "--output", "plain") as terminal:
        terminal.wait_for("Wait")
        assert not settled(lambda: [] if [*doors.glob("*")] else ["no door"], DEADLINE)
        ended = place.run("shell", stdin="uname -r; cat /dev/shm/mark; echo $MORE; touch /tmp/go; exit 6\n")
        assert ended.code == 6, ended
        kernel, mark, more = ended.stdout.split()
        assert (mark, more) == ("memory", "yes")
        assert kernel != platform.release()
        terminal.wait_for("'Break' failed in 'job'")
        terminal.wait_for("$ ")
        terminal.resize(33, 99)
        terminal.type("echo $(id -un) $(tput cols) $(cat /dev/shm/mark)\n")
        terminal.wait_for("runner 99 memory")
        terminal.type("sh -c 'echo o\"n\"e; exec sleep 1000'\n")
        terminal.wait_for("\rone")
        terminal.type("\x03")
        terminal.type("echo code $? > /tmp/mark; exit\n")
        terminal.wait_for("the run goes on")
        code, said = terminal.end()
    assert code == 1
    assert "code 130" in said.rpartition("the run goes on")[2]
