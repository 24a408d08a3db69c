"""The agent of a sandbox: namespaces on the host's own kernel instead of a VM, the same agent inside.

Three processes: the first is the host's child and, if it is root, prepares what only root can; the second
enters a user namespace; the third is process 1 of the sandbox's processes and becomes the agent. Each dies
with the one before it, and everything in the sandbox with the third.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys

from cloche.guest import linux, roots
from cloche.guest.agent import Agent
from cloche.guest.jobs import JobMaker
from cloche.guest.link import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

IDS = 65536
"""Users and groups that a sandbox started by root has."""
FIRST_ID = 524288
"""The host's id for the sandbox's root then: one that owns nothing on the host (see user_namespaces(7))."""
_STAGE = "/tmp"
_MAX_NPROC = 4096


class Plan:
    """What the host asks for: paths on the host, the network, the identity shown. ``channel`` is a descriptor."""

    def __init__(
        self, *, channel: int, lower: str, jobs: str, network: str, boot_id: str, resolv_conf: str
    ) -> None:
        self.channel = channel
        self.lower = lower
        self.jobs = jobs
        self.network = network
        self.boot_id = boot_id
        self.resolv_conf = resolv_conf


class Identity:
    """See agent.Identity. Clock and entropy are the host's; name and boot id are the sandbox's own."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id

    def take_on(self, hostname: str, now: float, seed: bytes) -> None:  # noqa: ARG002 - as agent.Identity
        """The name, in a namespace of the sandbox's; nothing else of the kernel's is its to set."""
        socket.sethostname(hostname)

    def boot_id(self) -> str:
        """What the sandbox's own /proc shows."""
        return self._boot_id


def main() -> None:
    """Wait to be told of a sandbox, and be it. Never returns; what goes wrong is a line on standard error."""
    told = sys.stdin.read()
    if not told:
        os._exit(0)  # started early, and no sandbox was wanted after all
    plan = Plan(channel=int(sys.argv[1]), **json.loads(told))
    try:
        if os.geteuid() == 0:
            _as_root(plan)
        else:
            _as_user(plan)
    except OSError as error:
        sys.stderr.write(f"the sandbox could not be made: {error}\n")
        os._exit(1)


def _as_root(plan: Plan) -> NoReturn:
    """Shift the job image's owners into an unused range of ids, so that the sandbox's root is nobody outside."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    entered, enter = os.pipe()
    go, ready = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWPID)
        os.write(enter, b".")
        os.close(ready)
        if os.read(go, 1):
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            os.setgroups([])
            linux.die_with_parent(signal.SIGKILL)  # which becoming another user would have undone
            if os.getppid() != parent:
                os._exit(1)
            _inside(plan, f"{_STAGE}/lower", f"{_STAGE}/jobs", single_user=False)
        os._exit(1)
    os.close(enter)
    if os.read(entered, 1):
        for kind in ("uid_map", "gid_map"):
            _write(f"/proc/{pid}/{kind}", f"0 {FIRST_ID} {IDS}\n")
        _stage(plan, pid)
        os.write(ready, b".")
    _wait(pid)


def _stage(plan: Plan, pid: int) -> None:
    """Put what the sandbox needs where its users can reach it: the host's own paths may be closed to them."""
    os.chown(plan.jobs, FIRST_ID, FIRST_ID)
    lower, jobs = linux.open_tree(plan.lower), linux.open_tree(plan.jobs)
    namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
    linux.map_owners(lower, namespace)
    os.close(namespace)
    linux.mount("tmpfs", _STAGE, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    for name, tree in (("lower", lower), ("jobs", jobs)):
        os.mkdir(f"{_STAGE}/{name}")
        linux.attach(tree, f"{_STAGE}/{name}")


def _as_user(plan: Plan) -> NoReturn:
    """One user is all an ordinary user may map: in the sandbox it is root, and everybody."""
    uid, gid = os.geteuid(), os.getegid()
    pid = os.fork()
    if pid == 0:
        linux.die_with_parent(signal.SIGKILL)
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWPID)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1\n")
        _write("/proc/self/gid_map", f"0 {gid} 1\n")
        _inside(plan, plan.lower, plan.jobs, single_user=True)
    _wait(pid)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _inside(plan: Plan, lower: str, jobs: str, *, single_user: bool) -> NoReturn:
    """In the user namespace: mounts and a name of its own, and process 1 of its process ids."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS)
    pid = os.fork()
    if pid:
        _wait(pid)
    linux.die_with_parent(signal.SIGKILL)
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    root = roots.RootPlan(
        lower=lower,
        folder=jobs,
        network=plan.network == "none",
        shared_kernel=True,
        boot_id=plan.boot_id,
        resolv_conf=plan.resolv_conf,
        single_user=single_user,
    )
    _limit_processes()
    channel = socket.socket(fileno=plan.channel)
    maker = JobMaker(root, None, cgroups=False)
    Agent(Link(channel.fileno(), channel), maker, Identity(plan.boot_id)).serve()


def _limit_processes() -> None:
    """Without control groups this is what stands between a fork bomb and the host."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    limit = _MAX_NPROC if hard == resource.RLIM_INFINITY else min(hard, _MAX_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))


def _wait(pid: int) -> NoReturn:
    _, status = os.waitpid(pid, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
