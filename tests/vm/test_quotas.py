"""What a run may use of a real guest, and the scripts around its job there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.place import Place, lacking, one_job

if TYPE_CHECKING:
    from pathlib import Path

CLOCHE_TOML = """
[setup]
run = "id -un; echo MADE=1 >> $GITHUB_ENV"

[cleanup]
run = "echo made $MADE; id -un"
"""
STEPS = """
- run: nproc; grep MemTotal /proc/meminfo
- run: echo up; sleep inf
- run: echo after all
  if: always()
"""


@pytest.mark.vm
def test_a_label_sizes_the_guest_and_its_time_ends(tmp_path: Path) -> None:
    if reason := lacking("qemu"):
        pytest.skip(reason)
    place = Place(tmp_path / "place", "qemu")
    place.write("cloche.toml", CLOCHE_TOML)
    place.workflow(one_job(STEPS).replace("ubuntu-latest", "cloche-1gb-2cpu"))
    ended = place.run("run", "--output", "jsonl", "--time", "8s")
    assert ended.conclusion == "failure"
    assert ended.output(step=1) == "runner\n"
    cpus, _, kilobytes, _ = ended.output(step=2).split()
    assert cpus == "2"
    assert 0.9 < int(kilobytes) / 1024**2 < 1.0
    told = ended.one("limit.reached")
    assert (told["which"], told["limit"]) == ("time", 8.0)
    assert [event["conclusion"] for event in ended.of("step.finished")] == [
        "success",
        "success",
        "cancelled",
        "success",
        "success",
    ]
    assert ended.output(step=4) == "after all\n"
    assert ended.output(step=5) == "made 1\nrunner\n"
    place.assert_clean()
