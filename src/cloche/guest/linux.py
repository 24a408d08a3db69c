"""The system calls that Python 3.11's standard library does not offer, by their manual pages' names.

Each raises OSError as ``os`` functions do. Sources: mount(2), unshare(2), pivot_root(2), prctl(2), random(4).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_NOATIME = 1024
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442  # one number on every architecture
_OPEN_TREE_CLONE = 1
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_LONG = ctypes.c_long
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOUNT_ATTR_IDMAP = 0x00100000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}  # glibc has no wrapper for it
_RNDADDENTROPY = 0x40085203
_RNDRESEEDCRNG = 0x5207
_MAX_ID = 64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.unshare.argtypes = [ctypes.c_int]
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system, or change a mount."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, flags, options.encode() or None
    )
    _check(result, f"mount {source} on {target}")


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    """A bind mount."""
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))


def open_tree(path: str) -> int:
    """A copy of the mount at ``path``, attached nowhere yet: a descriptor (open_tree(2))."""
    tree: int = _libc.syscall(_LONG(_SYS_OPEN_TREE), -1, path.encode(), _OPEN_TREE_CLONE | os.O_CLOEXEC)
    if tree < 0:
        _check(-1, f"open_tree {path}")
    return tree


def map_owners(tree: int, user_namespace: int) -> None:
    """Show the files of ``tree`` with their owners as a user namespace, a descriptor, maps them."""
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, user_namespace)
    size = ctypes.c_size_t(len(attributes))
    result = _libc.syscall(_LONG(_SYS_MOUNT_SETATTR), tree, b"", _AT_EMPTY_PATH, attributes, size)
    _check(result, "mount_setattr")


def attach(tree: int, target: str) -> None:
    """Mount ``tree`` at ``target`` and close it (move_mount(2))."""
    result = _libc.syscall(
        _LONG(_SYS_MOVE_MOUNT), tree, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH
    )
    _check(result, f"mount on {target}")
    os.close(tree)


def loopback_up() -> None:
    """Switch the loopback interface of this network namespace on (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(sock, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def unmount(target: str) -> None:
    """Detach a mount, now or when it is no longer used."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def unshare(flags: int) -> None:
    """Move the calling process into new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def pivot_root(new_root: str) -> None:
    """Make ``new_root`` the root and let go of the old one."""
    os.chdir(new_root)
    # Pivoting "." onto "." stacks the old root over the new one, where it can be detached without a folder for it.
    number = _SYS_PIVOT_ROOT[os.uname().machine]
    _check(_libc.syscall(_LONG(number), b".", b"."), f"pivot_root {new_root}")
    unmount(".")
    os.chdir("/")


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when its parent's thread ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl PDEATHSIG")


def add_entropy(seed: bytes) -> None:
    """Credit ``seed`` to the kernel's generator and make it reseed at once."""
    device = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _RNDADDENTROPY, struct.pack(f"ii{len(seed)}s", len(seed) * 8, len(seed), seed))
        fcntl.ioctl(device, _RNDRESEEDCRNG)
    finally:
        os.close(device)


def boot_id() -> str:
    """The kernel's boot id, made when it is first read: never read it before entropy has been added."""
    descriptor = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _MAX_ID).decode("ascii").strip()
    finally:
        os.close(descriptor)
