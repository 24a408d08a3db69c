"""What one program of a job takes is not the next one's to miss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloche.config import data_dir
from cloche.image.store import ImageStore
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.provider import VmSpec
from cloche.vm.qemu.provider import QemuProvider
from tests.e2e.place import lacking

if TYPE_CHECKING:
    from pathlib import Path

    from cloche.vm.guest import ExitStatus, JobRoot

ENV = {"PATH": "/usr/bin:/bin"}
FORK_UNTIL_REFUSED = """
import os, time
try:
    while True:
        if os.fork() == 0:
            time.sleep(1000)
except OSError as error:
    print(error)
"""


async def run(root: JobRoot, script: str) -> tuple[str, ExitStatus]:
    process = await root.exec(ExecSpec(["bash", "-c", script], ENV))
    output = b"".join([chunk async for chunk in process.output()]).decode()
    return output, await process.wait()


@pytest.mark.vm
async def test_processes_left_behind_leave_room_for_the_next_program(tmp_path: Path) -> None:
    if reason := lacking("qemu"):
        pytest.skip(reason)
    provider = QemuProvider(ImageStore(data_dir()), data_dir(), tmp_path / "vms")
    try:
        vm = (await provider.allocate(VmSpec())).vm
        async with await vm.guest.open_job(JobRootSpec("greedy", pids=64)) as root:
            output, _ = await run(root, f"python3 -c '{FORK_UNTIL_REFUSED}'")
            assert "Resource temporarily unavailable" in output
            output, status = await run(root, "for n in 1 2 3; do (echo $n) | cat & done; wait")
    finally:
        await provider.close()
    assert (sorted(output.split()), status.code) == (["1", "2", "3"], 0)
