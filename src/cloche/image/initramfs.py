"""The first files a guest's kernel sees: enough to mount the system image and hand over to the agent.

The archive is uncompressed on purpose: it is a few megabytes, and inflating it costs a guest under software
emulation more time than reading it.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from cloche.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from cloche.image.model import Image

BOOT_MODULES = (
    "virtio_mmio",
    "virtio_console",
    "virtio_blk",
    "virtio_net",
    "overlay",
    "erofs",
    "vmw_vsock_virtio_transport",
)
"""What a guest needs before its system image is mounted; what these depend on comes from ``modules.dep``."""

AGENT_IN_INITRAMFS = "cloche-agent.pyz"
AGENT_IN_GUEST = "run/cloche/agent.pyz"

DEVICE_WAIT_TENTHS = 100
"""How long /init waits for the disk of the system image, in tenths of a second."""

_APPLETS = ("cp", "insmod", "mkdir", "mount", "reboot", "sh", "sleep", "switch_root")

_INIT = """\
#!/bin/sh
# PID 1 until the agent takes over. Failing means saying why on the console and ending the VM.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
die() {
    echo "cloche-init: $*" >/dev/console
    reboot -f
    exit 1
}
step() { "$@" || die "failed: $*"; }

step mount -t proc proc /proc
step mount -t devtmpfs -o mode=755 dev /dev
read -r parameters </proc/cmdline
system=
for parameter in $parameters; do
    case $parameter in cloche.system=*) system=${parameter#*=} ;; esac
done
[ -n "$system" ] || die "no cloche.system=DEVICE on the kernel's command line"
@INSMOD@
waited=0
while [ ! -b "$system" ]; do
    [ $waited -lt @WAIT@ ] || die "no block device $system: is the system disk attached?"
    waited=$((waited + 1))
    sleep 0.1
done
step mount -t erofs -o ro "$system" /lower
step mount -t tmpfs -o mode=755 upper /upper
step mkdir /upper/data /upper/work
step mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work root /newroot
step mount -t tmpfs -o mode=755,nosuid,nodev run /newroot/run
step mount -t sysfs sys /newroot/sys
step mkdir /newroot/run/cloche
step cp /@AGENT@ /newroot/@TARGET@
step mount --move /proc /newroot/proc
step mount --move /dev /newroot/dev
exec switch_root -c /dev/console /newroot /usr/bin/python3 -I -S /@TARGET@
die "switch_root failed"
"""


def build_initramfs(system: Image, agent_archive: bytes, modules: Sequence[str] = BOOT_MODULES) -> bytes:
    """Make the initramfs (newc cpio) that boots ``system`` and runs ``agent_archive`` as PID 1.

    ``agent_archive`` is a Python zip application. ``modules`` are inserted in the order given, each after what
    it depends on. The same inputs give the same bytes. Raises ImageError when the image lacks a module.
    """
    files = module_files(read_dependencies(system.modules / "modules.dep"), modules)
    archive = _Cpio()
    for directory in ("bin", "dev", "lib", "lower", "newroot", "proc", "run", "upper"):
        archive.directory(directory)
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", system.busybox.read_bytes(), mode=0o755)
    for applet in _APPLETS:
        archive.symlink(f"bin/{applet}", "busybox")
    for file in files:
        archive.file(f"lib/{_module_name(file)}.ko", _module_content(system.modules / file))
    archive.file(AGENT_IN_INITRAMFS, agent_archive)
    archive.file("init", _init_script(map(_module_name, files)).encode(), mode=0o755)
    return archive.finish()


def read_dependencies(modules_dep: Path) -> dict[str, list[str]]:
    """``modules.dep`` as a mapping from each module's file to the files it depends on, nearest first."""
    try:
        lines = modules_dep.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ImageError(
            f"the system image has no module list: {error}", hint="cloche image build --force"
        ) from error
    pairs = (line.partition(":") for line in lines)
    return {file: needs.split() for file, _, needs in pairs}


def module_files(dependencies: Mapping[str, Sequence[str]], names: Iterable[str]) -> list[str]:
    """List the files of ``names`` and of all they depend on, each after its dependencies, without repetition.

    Raises ImageError for a name that ``modules.dep`` does not list.
    """
    by_name = {_module_name(file): file for file in dependencies}
    ordered: dict[str, None] = {}
    for name in names:
        if name not in by_name:
            raise ImageError(
                f"the system image's kernel has no module {name!r}", hint="cloche image build --force"
            )
        file = by_name[name]
        # depmod writes what is needed in the reverse of the order of insertion.
        ordered.update(dict.fromkeys([*reversed(dependencies[file]), file]))
    return list(ordered)


def _module_name(file: str) -> str:
    """``kernel/drivers/char/hw_random/virtio-rng.ko.xz`` is the module ``virtio_rng``."""
    return file.rpartition("/")[2].partition(".")[0].replace("-", "_")


def _module_content(file: Path) -> bytes:
    content = file.read_bytes()
    if file.suffix == ".xz":
        import lzma

        return lzma.decompress(content)
    if file.suffix == ".gz":
        import gzip

        return gzip.decompress(content)
    return content


def _init_script(modules: Iterable[str]) -> str:
    insmod = "\n".join(f"step insmod /lib/{name}.ko" for name in modules)
    return (
        _INIT.replace("@INSMOD@", insmod)
        .replace("@WAIT@", str(DEVICE_WAIT_TENTHS))
        .replace("@AGENT@", AGENT_IN_INITRAMFS)
        .replace("@TARGET@", AGENT_IN_GUEST)
    )


class _Cpio:
    """A newc archive, as the kernel's documentation describes it ("initramfs buffer format")."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []
        self._inode = 0

    def directory(self, name: str) -> None:
        self._entry(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        self._entry(name, stat.S_IFREG | mode, content)

    def symlink(self, name: str, target: str) -> None:
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def character_device(self, name: str, major: int, minor: int) -> None:
        self._entry(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def finish(self) -> bytes:
        self._entry("TRAILER!!!", 0)
        return b"".join(self._chunks)

    def _entry(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        self._inode += 1
        path = name.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        # inode, mode, uid, gid, links, mtime, size, device it is on, device it is, length of name, checksum
        fields = (self._inode, mode, 0, 0, links, 0, len(content), 0, 0, *device, len(path), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._chunks += [_padded(header + path), _padded(content)]


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
