from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
from typing import TYPE_CHECKING

import pytest

from cloche.guest import archive

if TYPE_CHECKING:
    from pathlib import Path


def entry(name: str, content: bytes = b"", /, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def folder(name: str, mode: int = 0o755, mtime: int = 0) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, type=tarfile.DIRTYPE, mode=mode, mtime=mtime)


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def unpack(target: Path, data: bytes) -> None:
    with tempfile.TemporaryFile() as source:
        source.write(data)
        source.seek(0)
        archive.unpack(str(target), source.fileno())


def pack(source: Path) -> tarfile.TarFile:
    packed = source.with_name("packed.tar")
    descriptor = os.open(packed, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        archive.pack(str(source), descriptor)
    finally:
        os.close(descriptor)
    return tarfile.open(packed)


def listing(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_tree_survives_both_ways(tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "bin").mkdir(parents=True)
    (source / "empty").mkdir(mode=0o700)
    tool = source / "bin" / "tool"
    tool.write_bytes(b"#!/bin/sh\n")
    tool.chmod(0o751)
    os.utime(tool, (1, 1_500_000_000))
    (source / "link").symlink_to("bin/tool")
    (source / "dangling").symlink_to("nowhere")
    (source / "hard").hardlink_to(tool)
    (source / "caf\udce9").write_bytes(b"bytes in a name")

    with pack(source) as tar:
        assert {name.partition("/")[0] for name in tar.getnames()} == {"tree"}
    unpack(tmp_path / "out", (tmp_path / "packed.tar").read_bytes())
    out = tmp_path / "out" / "tree"

    assert listing(out) == listing(source)
    assert ((out / "bin" / "tool").read_bytes(), mode(out / "bin" / "tool")) == (b"#!/bin/sh\n", 0o751)
    assert (out / "bin" / "tool").stat().st_mtime == 1_500_000_000
    assert (out / "link").readlink().name == "tool"
    assert (out / "dangling").is_symlink()
    assert (out / "hard").stat().st_ino == (out / "bin" / "tool").stat().st_ino
    assert mode(out / "empty") == 0o700
    assert (out / "caf\udce9").read_bytes() == b"bytes in a name"


def test_one_file_is_packed_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    with pack(tmp_path / "one") as tar:
        assert tar.getnames() == ["one"]


def test_what_is_not_there_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pack(tmp_path / "missing")


def test_missing_folders_are_made(tmp_path: Path) -> None:
    unpack(tmp_path / "new" / "deep", tar_of(entry("a/b/c", b"x")))
    assert (tmp_path / "new" / "deep" / "a" / "b" / "c").read_bytes() == b"x"


def test_files_belong_to_whoever_unpacks(tmp_path: Path) -> None:
    unpack(tmp_path / "out", tar_of(entry("file", b"x", uid=4242, gid=4242)))
    assert (tmp_path / "out" / "file").stat().st_uid == os.geteuid()


def test_members_of_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    data = tar_of(folder("locked", 0o555, mtime=1_400_000_000), entry("locked/file", b"x"))
    unpack(tmp_path / "out", data)
    locked = tmp_path / "out" / "locked"
    assert (locked / "file").read_bytes() == b"x"
    assert (mode(locked), locked.stat().st_mtime) == (0o555, 1_400_000_000)


@pytest.mark.parametrize("kind", ["file", "link", "link to a folder", "dangling link", "fifo"])
def test_a_file_replaces_what_is_in_its_way(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    (out / "folder").mkdir(parents=True)
    (out / "other").write_bytes(b"untouched")
    if kind == "file":
        (out / "name").write_bytes(b"a longer old content")
    elif kind == "fifo":
        os.mkfifo(out / "name")
    else:
        targets = {"link": "other", "link to a folder": "folder", "dangling link": "outside"}
        (out / "name").symlink_to(targets[kind])
    unpack(out, tar_of(entry("name", b"new")))
    assert (out / "name").read_bytes() == b"new"
    assert not (out / "name").is_symlink()
    assert (out / "other").read_bytes() == b"untouched"
    assert listing(out) == ["folder", "name", "other"]


def test_a_link_replaces_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "name").write_bytes(b"old")
    unpack(out, tar_of(entry("name", type=tarfile.SYMTYPE, linkname="elsewhere")))
    assert str((out / "name").readlink()) == "elsewhere"


def test_a_folder_replaces_a_file_and_merges_with_folders(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "real").mkdir(parents=True)
    (out / "real" / "stays").write_bytes(b"here")
    (out / "link").symlink_to("real")
    (out / "file").write_bytes(b"in the way")
    data = [folder(name) for name in ("real", "link", "file")]
    unpack(out, tar_of(*data, entry("link/new", b"x"), entry("file/new", b"y")))
    assert listing(out / "real") == ["new", "stays"]
    assert (out / "link").is_symlink()
    assert (out / "file" / "new").read_bytes() == b"y"


def test_a_file_in_the_place_of_a_folder_with_members_is_an_error_that_names_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "name").mkdir(parents=True)
    (out / "name" / "member").write_bytes(b"")
    with pytest.raises(OSError, match="name"):
        unpack(out, tar_of(entry("name", b"new")))
    assert (out / "name" / "member").exists()


def test_absolute_names_stay_below_the_folder(tmp_path: Path) -> None:
    name = f"{tmp_path}/escaped"
    unpack(tmp_path / "out", tar_of(entry(name, b"x")))
    assert not (tmp_path / "escaped").exists()
    assert (tmp_path / "out" / name.lstrip("/")).read_bytes() == b"x"


@pytest.mark.parametrize(
    "data",
    [b"", b"this is no archive" * 100, tar_of(entry("file", bytes(10_000)))[:5000]],
    ids=["empty", "no archive", "cut off"],
)
def test_a_broken_stream_is_an_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises((tarfile.TarError, OSError)):
        unpack(tmp_path / "out", data)


def test_an_archive_without_members_is_fine(tmp_path: Path) -> None:
    unpack(tmp_path / "out", tar_of())
    assert list((tmp_path / "out").iterdir()) == []
