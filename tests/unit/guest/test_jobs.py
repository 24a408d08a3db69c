from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloche.guest.jobs import JobError, JobMaker, let_go_of_all_but
from cloche.guest.roots import RootPlan


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def wait_for_children() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def test_a_root_that_cannot_be_made_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    plan = RootPlan(lower="/no/such/image", folder=str(tmp_path / "jobs"))
    maker = JobMaker(plan, None, cgroups=False)
    before = descriptors()
    for _ in range(2):
        with pytest.raises(JobError, match=r"a job root could not be made: \S"):
            maker.make()
    wait_for_children()  # the removal goes on in the background
    assert list((tmp_path / "jobs").iterdir()) == []
    assert descriptors() == before


def test_a_fork_lets_go_of_what_it_is_not_told_to_keep() -> None:
    kept, other = os.pipe()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        let_go_of_all_but(writer, None, kept)
        names = {Path(f"/proc/self/fd/{fd}").readlink() for fd in (kept, writer)}
        count = len(list(Path("/proc/self/fd").iterdir())) - 1  # less the one that lists
        os.write(writer, f"{count} {len(names)}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert pipe.read() == b"5 2"
    os.waitpid(pid, 0)
    os.close(kept)
    os.close(other)
