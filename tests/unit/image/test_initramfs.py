"""The initramfs, read back as the kernel would."""

from __future__ import annotations

import lzma
import stat
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import ImageError
from cloche.image.initramfs import AGENT_IN_INITRAMFS, _Cpio, build_initramfs, module_files, read_dependencies
from cloche.image.model import Image

if TYPE_CHECKING:
    from pathlib import Path

DEPENDENCIES = """\
kernel/drivers/virtio/virtio_ring.ko:
kernel/drivers/virtio/virtio.ko: kernel/drivers/virtio/virtio_ring.ko
kernel/drivers/block/virtio-blk.ko: kernel/drivers/virtio/virtio.ko kernel/drivers/virtio/virtio_ring.ko
kernel/fs/erofs.ko.xz: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
"""


class Entry(NamedTuple):
    mode: int
    content: bytes
    device: tuple[int, int]


def parse(archive: bytes) -> dict[str, Entry]:
    """Read a newc archive by the kernel's description of the format."""
    entries: dict[str, Entry] = {}
    at = 0
    while True:
        assert at % 4 == 0
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        _ino, mode, _uid, _gid, _links, _mtime, size, _dmaj, _dmin, major, minor, name_size, _check = fields
        name_end = at + 110 + name_size
        name = archive[at + 110 : name_end]
        assert name.endswith(b"\0")
        start = -(-name_end // 4) * 4
        at = -(-(start + size) // 4) * 4
        if name == b"TRAILER!!!\0":
            assert at == len(archive)
            return entries
        entries[name[:-1].decode()] = Entry(mode, archive[start : start + size], (major, minor))


@pytest.fixture
def system(tmp_path: Path) -> Image:
    for file in (
        "drivers/virtio/virtio_ring.ko",
        "drivers/virtio/virtio.ko",
        "drivers/block/virtio-blk.ko",
        "lib/libcrc32c.ko",
    ):
        path = tmp_path / "modules" / "kernel" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"module {file}")
    compressed = tmp_path / "modules" / "kernel" / "fs" / "erofs.ko.xz"
    compressed.parent.mkdir(parents=True)
    compressed.write_bytes(lzma.compress(b"module erofs"))
    (tmp_path / "modules" / "modules.dep").write_text(DEPENDENCIES)
    (tmp_path / "busybox").write_bytes(b"busybox!")
    return Image("system", "d", tmp_path, {"release": "6.1"})


def test_it_holds_what_init_needs(system: Image) -> None:
    entries = parse(build_initramfs(system, b"PK agent", ("virtio_blk", "erofs")))
    assert entries["bin/busybox"].content == b"busybox!"
    assert entries["bin/busybox"].mode == stat.S_IFREG | 0o755
    assert entries["bin/sh"].content == b"busybox"
    assert stat.S_ISLNK(entries["bin/sh"].mode)
    assert entries["dev/console"].device == (5, 1)
    assert stat.S_ISCHR(entries["dev/console"].mode)
    assert entries[AGENT_IN_INITRAMFS].content == b"PK agent"
    assert entries["init"].mode == stat.S_IFREG | 0o755


def test_every_directory_comes_before_what_is_in_it(system: Image) -> None:
    names = list(parse(build_initramfs(system, b"", ("erofs",))))
    for name in names:
        parent = name.rpartition("/")[0]
        assert not parent or names.index(parent) < names.index(name)


def test_modules_go_in_after_what_they_depend_on(system: Image) -> None:
    entries = parse(build_initramfs(system, b"", ("virtio_blk", "erofs")))
    inserted = [
        line.split()[-1] for line in entries["init"].content.decode().splitlines() if "insmod" in line
    ]
    assert inserted == [
        "/lib/virtio_ring.ko",
        "/lib/virtio.ko",
        "/lib/virtio_blk.ko",
        "/lib/libcrc32c.ko",
        "/lib/erofs.ko",
    ]
    assert all(path.removeprefix("/") in entries for path in inserted)


def test_compressed_modules_are_decompressed(system: Image) -> None:
    assert parse(build_initramfs(system, b"", ("erofs",)))["lib/erofs.ko"].content == b"module erofs"


def test_equal_inputs_give_equal_bytes(system: Image) -> None:
    assert build_initramfs(system, b"a", ("erofs",)) == build_initramfs(system, b"a", ("erofs",))


def test_every_program_that_init_calls_is_there(system: Image) -> None:
    entries = parse(build_initramfs(system, b"", ("erofs",)))
    script = entries["init"].content.decode()
    for program in ("mount", "mkdir", "cp", "insmod", "sleep", "reboot", "switch_root"):
        assert program in script
        assert f"bin/{program}" in entries
    assert "@" not in script.replace('"$@"', "")


def test_an_unknown_module_is_named(system: Image) -> None:
    with pytest.raises(ImageError, match="no module 'squashfs'") as caught:
        build_initramfs(system, b"", ("squashfs",))
    assert caught.value.hint == "cloche image build --force"


def test_an_image_without_modules_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no module list"):
        read_dependencies(tmp_path / "modules.dep")


@given(st.data())
def test_dependencies_always_come_first_and_once(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 8))
    below = {n: data.draw(st.sets(st.integers(0, n - 1))) if n else set() for n in range(count)}
    closed: dict[int, list[int]] = {}
    for n in range(count):
        needs = set(below[n]).union(*(closed[m] for m in below[n])) if below[n] else set()
        closed[n] = sorted(needs, reverse=True)  # as depmod: insert from the right
    dependencies = {f"kernel/m{n}.ko": [f"kernel/m{m}.ko" for m in closed[n]] for n in range(count)}
    wanted = data.draw(st.lists(st.integers(0, count - 1), min_size=1))
    files = module_files(dependencies, [f"m{n}" for n in wanted])
    assert len(files) == len(set(files))
    for file in files:
        assert all(files.index(needed) < files.index(file) for needed in dependencies[file])
    assert {f"kernel/m{n}.ko" for n in wanted} <= set(files)


@given(st.dictionaries(st.text("abc/", min_size=1, max_size=12), st.binary(max_size=40), max_size=6))
def test_what_goes_into_the_archive_comes_out(files: dict[str, bytes]) -> None:
    archive = _Cpio()
    for name, content in files.items():
        archive.file(name, content)
    assert {name: entry.content for name, entry in parse(archive.finish()).items()} == files
