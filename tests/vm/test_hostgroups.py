"""Groups on the host, with a kernel's own hierarchy: inside one of our guests, whose jobs are handed cpu and pids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloche.config import data_dir
from cloche.image.store import ImageStore
from cloche.vm import hostgroups
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.provider import VmSpec
from cloche.vm.qemu.provider import QemuProvider
from tests.e2e.place import lacking

ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": "/probe"}
PROBE = """
import ctypes, json, os, pathlib, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
os.mkdir("/probe/cgroup")
if libc.mount(b"none", b"/probe/cgroup", b"cgroup2", 0, None):
    sys.exit(os.strerror(ctypes.get_errno()))
from hostgroups import HostGroups, find

root = pathlib.Path("/probe/cgroup")
told = {"found": find(root)}
groups = HostGroups(find(root))
made = groups.make("vm-1", cpus=1, memory=1 << 30, emulated=False)
told["after"] = find(root)
told["limits"] = {name: (made.path / name).read_text().strip() for name in ("cpu.max", "pids.max")}
(made.path / "pids.max").write_text("5")

fork = "import os, sys, time; sys.stdin.readline()\\nfor n in range(9):\\n  if os.fork() == 0: time.sleep(99)"
process = subprocess.Popen(
    [sys.executable, "-c", fork], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
)
made.add(process.pid)
process.stdin.write("go\\n")
process.stdin.flush()
told["refused"] = process.stderr.readline() and process.wait()
told["members"] = len((made.path / "cgroup.procs").read_text().split())
(made.path / "cgroup.kill").write_text("1")
while (made.path / "cgroup.procs").read_text():
    time.sleep(0.01)
made.remove()
told["left"] = made.path.exists()
told["ours"] = open("/proc/self/cgroup").read().strip()
told["second"] = groups.make("vm-2", cpus=1, memory=1 << 30, emulated=False) is not None
print(json.dumps(told, default=str))
"""


@pytest.mark.vm
async def test_a_kernels_own_groups_bound_a_process_and_go_with_it(tmp_path: Path) -> None:
    if reason := lacking("qemu"):
        pytest.skip(reason)
    files = {
        "/probe/probe.py": PROBE.encode(),
        "/probe/hostgroups.py": Path(hostgroups.__file__).read_bytes(),
    }
    argv = ["unshare", "--cgroup", "--mount", "python3", "/probe/probe.py"]
    provider = QemuProvider(ImageStore(data_dir()), data_dir(), tmp_path / "vms")
    try:
        vm = (await provider.allocate(VmSpec())).vm
        async with await vm.guest.open_job(JobRootSpec("host")) as root:
            process = await root.exec(ExecSpec(argv, ENV, user="root", files=files))
            output = b"".join([chunk async for chunk in process.output()]).decode()
            status = await process.wait()
    finally:
        await provider.close()
    assert status.code == 0, output
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert told["found"] == ["/probe/cgroup", ["cpu", "pids"], ""]
    assert told["after"] == told["found"]
    assert told["limits"] == {"cpu.max": "150000 100000", "pids.max": "129"}
    assert told["refused"] == 1
    assert told["members"] == 4, "the forks that were allowed"
    assert told["left"] is False
    assert told["ours"] == f"0::/{hostgroups.LEAF}"
    assert told["second"] is True
