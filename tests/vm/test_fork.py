"""``cloche fork`` on real guests: attempts from one moment, none of which knows of another."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from cloche.config import data_dir
from tests.e2e.place import Place, beside_images, lacking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.vm

STEPS = """
- uses: actions/checkout@v4
- run: echo in memory > /dev/shm/memory; echo PASSED=on >> "$GITHUB_ENV"
- name: fails
  run: cat nowhere
  working-directory: inner
- run: cat inner/result
"""


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Place]:
    if reason := lacking("qemu"):
        pytest.skip(reason)
    made = Place(tmp_path / "place", "qemu")
    # Kept runs have links to images and templates: they lie beside them, and these are of this place alone.
    mine = beside_images(tmp_path.name) / "cloche"
    mine.mkdir(parents=True)
    for name in ("images", "refs", "templates", "locks", "kvm.json"):
        if (data_dir() / name).exists():
            (mine / name).symlink_to(data_dir() / name)
    made.env["XDG_DATA_HOME"] = str(mine.parent)
    yield made
    made.assert_clean()
    shutil.rmtree(mine.parent)


def test_ways_out_of_a_failure(qemu: Place) -> None:
    qemu.write("inner/here", "from the repository\n")
    qemu.steps(STEPS)
    failed = qemu.run("run", "--snapshot", "on-failure")
    assert failed.code == 1, failed
    tries = (
        "cat /dev/shm/memory here; echo $PASSED; echo one > result",
        "echo two > result; rm /dev/shm/memory; exit 3",
        "test -e /dev/shm/memory && test ! -e result && echo three > result",
    )
    ended = qemu.run(
        "fork", "last", "--output", "json", *(word for script in tries for word in ("--try", script))
    )
    assert ended.code == 0, ended
    told = json.loads(ended.stdout)
    assert [(one["conclusion"], one["exit_code"]) for one in told["attempts"]] == [
        ("success", 0),
        ("failure", 3),
        ("success", 0),
    ]
    assert told["attempts"][0]["output"] == "in memory\nfrom the repository\non\n"
    assert [list(one["files"]) for one in told["attempts"]] == [["inner/result"]] * 3
    assert len({one["files"]["inner/result"] for one in told["attempts"]}) == 3

    picked = qemu.run("fork", "last", "--try", tries[0], "--pick", "1")
    assert picked.code == 0, picked
    assert "one\n" in picked.stdout
    assert qemu.run("fork", "last", "--try", tries[1], "--pick", "1").code == 1


LEGS = """
name: Legs
on: push
jobs:
  test:
    runs-on: ubuntu-latest
    strategy:
      matrix: {number: [1, 2]}
      max-parallel: 1
      fail-fast: false
    steps:
      - run: test ${{ matrix.number }} = 1
      - run: echo on
"""


def test_the_leg_that_failed_goes_on_though_another_has_ended(qemu: Place) -> None:
    qemu.workflow(LEGS)
    failed = qemu.run("run", "--snapshot", "on-failure")
    assert failed.code == 1, failed
    picked = qemu.run("fork", "last", "--try", "echo ${{ matrix.number }}", "--pick", "1")
    assert picked.code == 0, picked
