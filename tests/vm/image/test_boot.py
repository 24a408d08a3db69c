"""The built images, booted by hand: kernel, initramfs, root, and an agent of a few lines."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from cloche.config import data_dir
from cloche.errors import ImageError
from cloche.image.initramfs import build_initramfs
from cloche.image.store import ImageStore

if TYPE_CHECKING:
    from pathlib import Path

    from cloche.image.model import Image

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

AGENT = """
import ctypes, json, os, platform, sqlite3, ssl, subprocess
open("/writable", "w").close()
modules = subprocess.run(["modprobe", "veth"]).returncode
tools = [tool for tool in ("ip", "nft", "crun", "mkfs.ext4", "modprobe") if not __import__("shutil").which(tool)]
print("FACTS", json.dumps({
    "pid": os.getpid(), "release": platform.release(), "flags": [os.sys.flags.isolated, os.sys.flags.no_site],
    "modprobe": modules, "missing": tools, "host": open("/etc/hostname").read(), "argv": os.sys.argv,
    "mounts": [line.split()[1] for line in open("/proc/mounts")],
}), flush=True)
os.sync()
ctypes.CDLL(None).reboot(0x01234567)
"""


JOB_AGENT = """
import ctypes, os, subprocess
script = '''
id -u -n
sudo -n id -u
/opt/cloche/node20/bin/node -p process.version
node -p process.version
git --version
python -c 'import venv, pip; print("pip", pip.__version__)'
printf 'int main(void) { return 7; }' >/tmp/a.c && gcc -o /tmp/a /tmp/a.c; /tmp/a; echo "gcc $?"
stat -c '%U %a %n' /home/runner/work /opt/hostedtoolcache /tmp
'''
open("/proc/sys/kernel/hostname", "w").write("cloche")
run = lambda *argv: subprocess.run(argv, check=True)
run("mkdir", "/job", "/upper")
run("mount", "-t", "tmpfs", "upper", "/upper")
run("mkdir", "/upper/data", "/upper/work", "/upper/lower")
run("mount", "-t", "erofs", "-o", "ro", "/dev/vdb", "/upper/lower")
run("mount", "-t", "overlay", "-o", "lowerdir=/upper/lower,upperdir=/upper/data,workdir=/upper/work", "job", "/job")
run("mount", "-t", "proc", "proc", "/job/proc")
run("mount", "--bind", "/dev", "/job/dev")
subprocess.run(
    ["chroot", "--userspec=runner", "--groups=", "/job", "bash", "-c", script],
    env={"PATH": os.environ["PATH"], "HOME": "/home/runner"}, stderr=subprocess.STDOUT,
)
os.sync()
ctypes.CDLL(None).reboot(0x01234567)
"""


@pytest.fixture(scope="module")
def system() -> Image:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    try:
        return ImageStore(data_dir()).resolve("system", "system")
    except ImageError as error:
        pytest.skip(f"{error}: cloche image build")


def boot(system: Image, agent: str, directory: Path, parameters: str, *disks: Path) -> str:
    """Boot and return what the console said. QEMU ends with the guest; a boot that hangs fails by its time."""
    from cloche.vm.qemu.machine import host_tsc_khz

    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as program:
        program.writestr("__main__.py", agent)
    initramfs = directory / "initramfs"
    initramfs.write_bytes(build_initramfs(system, archive.getvalue()))
    kernel = f"console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz={host_tsc_khz()} {parameters}"
    drives = [
        argument
        for number, file in enumerate((system.system, *disks))
        for argument in (
            *("-drive", f"id=d{number},file={file},format=raw,if=none,readonly=on"),
            *("-device", f"virtio-blk-device,drive=d{number}"),
        )
    ]
    command = [
        "qemu-system-x86_64", "-M", "microvm,acpi=on,x-option-roms=off,rtc=on", "-accel", "tcg", "-cpu", "max",
        "-m", "512", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-kernel", str(system.kernel), "-initrd", str(initramfs), "-append", kernel,
        *drives,
    ]  # fmt: skip
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=True
    ).stdout


def test_the_agent_runs_as_the_first_process_of_a_writable_root(system: Image, tmp_path: Path) -> None:
    import json

    said = boot(system, AGENT, tmp_path, "cloche.system=/dev/vda")
    (line,) = (line for line in said.splitlines() if line.startswith("FACTS "))
    facts = json.loads(line.removeprefix("FACTS "))
    assert facts["pid"] == 1
    assert facts["release"] == system.release
    assert facts["flags"] == [1, 1]
    assert facts["argv"] == ["/run/cloche/agent.pyz"]
    assert facts["modprobe"] == 0
    assert facts["missing"] == []
    assert facts["host"] == "cloche\n"
    assert {"/", "/proc", "/sys", "/dev", "/run"} <= set(facts["mounts"])


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ("", "cloche-init: no cloche.system=DEVICE on the kernel's command line"),
        ("cloche.system=/dev/vdz", "cloche-init: no block device /dev/vdz: is the system disk attached?"),
    ],
)
def test_a_boot_that_cannot_go_on_says_why_and_ends(
    system: Image, tmp_path: Path, parameters: str, words: str
) -> None:
    assert words in boot(system, "", tmp_path, parameters)


def test_the_default_job_image_has_what_a_job_expects(system: Image, tmp_path: Path) -> None:
    try:
        job = ImageStore(data_dir()).resolve("default", "job")
    except ImageError as error:
        pytest.skip(f"{error}: cloche image build")
    said = boot(system, JOB_AGENT, tmp_path, "cloche.system=/dev/vda", job.job)
    lines = [line.strip() for line in said.splitlines()]
    assert lines[lines.index("runner") :][:2] == ["runner", "0"]
    for start in ("v20.", "v24.", "git version 2.", "pip ", "gcc 7"):
        assert any(line.startswith(start) for line in lines), said
    assert "runner 755 /home/runner/work" in lines
    assert "runner 755 /opt/hostedtoolcache" in lines
    assert "root 1777 /tmp" in lines
