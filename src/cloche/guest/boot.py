"""What the agent does as process 1 of a microVM, before it answers: file systems, disk, network, first roots."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time

from cloche.guest import cgroups, linux, roots
from cloche.guest.jobs import JobMaker
from cloche.guest.network import RESOLVER, JobNetwork

_JOB_IMAGE = "/dev/vdb"
_SCRATCH = "/dev/vdc"
INBOX = "/dev/vdd"
_LOWER = "/run/cloche/image"
_JOBS = "/run/cloche/jobs"
_MODULES = ("veth", "bridge", "nft_masq", "nft_chain_nat", "tun", "fuse")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FORMAT_DEADLINE = 120.0


def open_port() -> int:
    """The virtio-serial port that the host listens on, found by its name in sysfs."""
    folder = "/sys/class/virtio-ports"
    for entry in os.listdir(folder):
        with open(f"{folder}/{entry}/name", encoding="ascii") as file:
            if file.read().strip() == "cloche.agent":
                return os.open(f"/dev/{entry}", os.O_RDWR | os.O_CLOEXEC)
    raise RuntimeError("this VM has no port named cloche.agent")


def prepare() -> JobMaker:
    """Everything between the initramfs and the first answer."""
    os.environ.clear()
    os.environ["PATH"] = _PATH
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("-1000")
    cgroups.mount()
    _mount_job_image()
    _format_scratch()
    subprocess.run(["modprobe", "-aq", *_MODULES], check=False, timeout=_FORMAT_DEADLINE)
    network = JobNetwork(outward=os.path.exists("/sys/class/net/eth0"))
    network.prepare()
    plan = roots.RootPlan(lower=_LOWER, folder=_JOBS, resolv_conf=f"nameserver {RESOLVER}\n")
    return JobMaker(plan, network, cgroups=True)


def _mount_job_image() -> None:
    os.makedirs(_LOWER, exist_ok=True)
    linux.mount(_JOB_IMAGE, _LOWER, "erofs", linux.MS_RDONLY)


def _format_scratch() -> None:
    """The disk that jobs write to. No journal: it lives as long as the VM and is never mounted again."""
    os.makedirs(_JOBS, exist_ok=True)
    features = "^has_journal,^resize_inode,uninit_bg"
    options = ["-O", features, "-E", "lazy_itable_init=1,nodiscard", "-m", "0", "-I", "256"]
    subprocess.run(["mkfs.ext4", "-q", "-F", *options, _SCRATCH], check=True, timeout=_FORMAT_DEADLINE)
    # Nor does every copy of the template have to zero the tables of inodes that it will never use.
    linux.mount(_SCRATCH, _JOBS, "ext4", linux.MS_NOATIME, "discard,noinit_itable")
    os.chmod(_JOBS, 0o711)  # noqa: S103 - users pass through to what is theirs


class Identity:
    """A microvm's identity: see agent.Identity.

    The order matters: the kernel makes the boot id when it is first read (see linux.boot_id).
    """

    def take_on(self, hostname: str, now: float, seed: bytes) -> None:
        """Clock, entropy, name."""
        time.clock_settime(time.CLOCK_REALTIME, now)
        linux.add_entropy(seed)
        socket.sethostname(hostname)

    def boot_id(self) -> str:
        """The kernel's."""
        return linux.boot_id()
