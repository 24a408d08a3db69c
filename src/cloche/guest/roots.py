"""Making a job's root: namespaces, overlay, the file systems and devices a program expects.

Runs in the process that becomes the job's init, before it is handed to anything the user wrote.
"""

from __future__ import annotations

import contextlib
import os
import stat

from cloche.guest import linux

_NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
_DEVICES = {
    "null": (1, 3, 0o666),
    "zero": (1, 5, 0o666),
    "full": (1, 7, 0o666),
    "random": (1, 8, 0o666),
    "urandom": (1, 9, 0o666),
    "tty": (5, 0, 0o666),
}
_VM_DEVICES = {"fuse": (10, 229, 0o666), "net/tun": (10, 200, 0o666)}
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_READ_ONLY_PROC = ("sys", "sysrq-trigger", "irq", "bus")


class RootPlan:
    """What a job's root is made of.

    ``lower`` is the job image's tree, ``folder`` holds the overlay's upper layer and is the job's own.
    ``shared_kernel`` is true where the kernel is the host's (the sandbox): devices are bound from it, its
    settings are read-only and ``boot_id`` is shown instead of the kernel's own. ``network`` is false to leave
    the job in the agent's network namespace. ``single_user``: the user namespace maps one user only.
    """

    def __init__(
        self,
        *,
        lower: str,
        folder: str,
        network: bool = True,
        shared_kernel: bool = False,
        boot_id: str = "",
        resolv_conf: str = "",
        single_user: bool = False,
    ) -> None:
        self.lower = lower
        self.folder = folder
        self.network = network
        self.shared_kernel = shared_kernel
        self.boot_id = boot_id
        self.resolv_conf = resolv_conf
        self.single_user = single_user


# Where everybody is root already, sudo(8) cannot change users, but its commands need not fail for that.
_SUDO = """#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        --) shift; break ;;
        -[CDghpRrTtUu]) shift 2 ;;
        -[is] | --login | --shell) shift; [ $# -gt 0 ] || set -- "${SHELL:-/bin/sh}" ;;
        -*) shift ;;
        *=*) export "$1"; shift ;;
        *) break ;;
    esac
done
exec "$@"
"""


def unshare(plan: RootPlan, *, cgroups: bool) -> None:
    """Namespaces of the job's own; the next fork is process 1 of its process ids."""
    flags = _NAMESPACES
    if plan.network:
        flags |= linux.CLONE_NEWNET
    if cgroups:
        flags |= linux.CLONE_NEWCGROUP
    linux.unshare(flags)


def enter(plan: RootPlan, *, cgroups: bool) -> None:
    """Build the root and make it this process's. Needs to be process 1 of the new namespaces."""
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    root = _overlay(plan)
    os.umask(0)
    linux.mount("proc", f"{root}/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    _sys(plan, root, cgroups=cgroups)
    _dev(plan, root)
    for path in ("run", "tmp"):
        os.makedirs(f"{root}/{path}", exist_ok=True)
    os.chmod(f"{root}/tmp", 0o1777)  # noqa: S103 - what /tmp is
    linux.mount("tmpfs", f"{root}/run", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755")
    os.mkdir(f"{root}/run/lock", 0o1777)
    if plan.shared_kernel:
        _guard_kernel(plan, root)
    if plan.single_user:
        _replace_sudo(plan, root)
    _resolv_conf(plan, root)
    linux.pivot_root(root)
    os.umask(0o022)


def _overlay(plan: RootPlan) -> str:
    for name in ("upper", "work", "root"):
        os.makedirs(f"{plan.folder}/{name}", mode=0o755, exist_ok=True)
    root = f"{plan.folder}/root"
    # volatile: the root outlives no power cut, so nothing in it needs to reach the disk, not even at its end.
    layers = f"lowerdir={plan.lower},upperdir={plan.folder}/upper,workdir={plan.folder}/work,volatile"
    options = f"{layers},userxattr" if plan.shared_kernel else layers
    linux.mount("overlay", root, "overlay", options=options)
    for name in ("proc", "sys", "dev"):
        os.makedirs(f"{root}/{name}", exist_ok=True)
    return root


def _sys(plan: RootPlan, root: str, *, cgroups: bool) -> None:
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    if plan.shared_kernel and not plan.network:
        # A sysfs of one's own needs a network of one's own; the host's is only readable to mapped users.
        linux.bind("/sys", f"{root}/sys", recursive=True)
    else:
        linux.mount("sysfs", f"{root}/sys", "sysfs", flags | (linux.MS_RDONLY if plan.shared_kernel else 0))
    if cgroups:
        linux.mount("cgroup2", f"{root}/sys/fs/cgroup", "cgroup2", flags)


def _dev(plan: RootPlan, root: str) -> None:
    dev = f"{root}/dev"
    linux.mount("tmpfs", dev, "tmpfs", linux.MS_NOSUID, "mode=755,size=64k,nr_inodes=256")
    for name in ("pts", "shm", "mqueue", "net"):
        os.mkdir(f"{dev}/{name}", 0o755)
    for name, (major, minor, mode) in _DEVICES.items():
        if plan.shared_kernel:
            _bind_file(f"/dev/{name}", f"{dev}/{name}")
        else:
            os.mknod(f"{dev}/{name}", mode | stat.S_IFCHR, os.makedev(major, minor))
    if not plan.shared_kernel:
        for name, (major, minor, mode) in _VM_DEVICES.items():
            os.mknod(f"{dev}/{name}", mode | stat.S_IFCHR, os.makedev(major, minor))
    for name, target in _LINKS.items():
        os.symlink(target, f"{dev}/{name}")
    linux.mount(
        "devpts",
        f"{dev}/pts",
        "devpts",
        linux.MS_NOSUID | linux.MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=620",
    )
    linux.mount("tmpfs", f"{dev}/shm", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=1777")
    with contextlib.suppress(OSError):  # a kernel may lack message queues; nothing of ours needs them
        linux.mount("mqueue", f"{dev}/mqueue", "mqueue", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)


def _bind_file(source: str, target: str) -> None:
    with open(target, "wb"):
        pass
    linux.bind(source, target)


def _guard_kernel(plan: RootPlan, root: str) -> None:
    """The kernel is the host's: its switches are read-only, and the boot id shown is this guest's own."""
    for name in _READ_ONLY_PROC:
        path = f"{root}/proc/{name}"
        with contextlib.suppress(FileNotFoundError):
            linux.bind(path, path)
            flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY
            linux.mount("none", path, flags=flags | linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    shown = f"{plan.folder}/boot_id"
    with open(shown, "w", encoding="ascii") as file:
        file.write(f"{plan.boot_id}\n")
    linux.bind(shown, f"{root}/proc/sys/kernel/random/boot_id")


def _replace_sudo(plan: RootPlan, root: str) -> None:
    if not os.path.exists(f"{root}/usr/bin/sudo"):
        return
    ours = f"{plan.folder}/sudo"
    with open(ours, "w", encoding="ascii") as file:
        file.write(_SUDO)
    os.chmod(ours, 0o755)  # noqa: S103 - a program
    linux.bind(ours, f"{root}/usr/bin/sudo")


def _resolv_conf(plan: RootPlan, root: str) -> None:
    if not plan.resolv_conf:
        return
    path = f"{root}/etc/resolv.conf"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        open(path, "w", encoding="utf-8") as file,
    ):
        file.write(plan.resolv_conf)
