from __future__ import annotations

import os
import socket
import stat
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cloche.vm.sandbox.layers import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

MUCH = 1 << 30
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make these")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    made = tmp_path / "upper"
    made.mkdir()
    return made


@pytest.fixture
def copy(top: Path, tmp_path: Path) -> Callable[[], Path]:
    """Pack the folder, unpack it elsewhere."""

    def copy() -> Path:
        pack(top, tmp_path / "archive", MUCH)
        unpack(tmp_path / "archive", tmp_path / "copy")
        return tmp_path / "copy"

    return copy


def test_content_modes_and_times(top: Path, copy: Callable[[], Path]) -> None:
    (top / "folder").mkdir()
    file = top / "folder/file"
    file.write_bytes(bytes(range(256)) * 1000)
    file.chmod(0o4751)
    os.utime(file, (1e9, 1e9 + 0.25))
    (top / "folder").chmod(0o500)
    there = copy() / "folder/file"
    assert there.read_bytes() == file.read_bytes()
    assert stat.S_IMODE(there.stat().st_mode) == 0o4751
    assert there.stat().st_mtime == 1e9 + 0.25
    assert stat.S_IMODE(there.parent.stat().st_mode) == 0o500
    (top / "folder").chmod(0o700)
    there.parent.chmod(0o700)


def test_links_stay_links(top: Path, copy: Callable[[], Path]) -> None:
    (top / "file").write_text("one")
    (top / "hard").hardlink_to(top / "file")
    (top / "soft").symlink_to("/etc/passwd")
    (top / "loop").symlink_to("loop")
    there = copy()
    assert (there / "file").samefile(there / "hard")
    assert (there / "soft").readlink().as_posix() == "/etc/passwd"
    assert (there / "loop").is_symlink()


@pytest.mark.parametrize("name", ["two\nlines", "ünïcode", "\udcff", "-rf", "a" * 200])
def test_names_of_all_kinds(top: Path, copy: Callable[[], Path], name: str) -> None:
    (top / name).write_text(name[:1] if name.isprintable() else "x")
    assert [path.name for path in copy().iterdir()] == [name]


def test_what_keeps_its_owner_out_is_kept(top: Path, copy: Callable[[], Path]) -> None:
    (top / "closed").mkdir()
    (top / "closed/secret").write_text("s")
    (top / "closed/secret").chmod(0)
    (top / "closed").chmod(0)
    there = copy() / "closed"
    assert stat.S_IMODE((top / "closed").stat().st_mode) == 0
    assert stat.S_IMODE(there.stat().st_mode) == 0
    for folder in (there, top / "closed"):
        folder.chmod(0o700)
        assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0
    (there / "secret").chmod(0o600)
    assert (there / "secret").read_text() == "s"


@as_root
def test_an_ordinary_user_keeps_what_keeps_its_owner_out() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chown(name, NOBODY, NOBODY)
        top = Path(name, "upper")
        os.seteuid(NOBODY)
        try:
            (top / "closed").mkdir(parents=True)
            (top / "closed/secret").write_text("s")
            (top / "closed/secret").chmod(0)
            for mode in (0, 0o400):
                (top / "closed").chmod(mode)
                pack(top, Path(name, f"archive-{mode}"), MUCH)
                assert stat.S_IMODE((top / "closed").stat().st_mode) == mode
                copy = Path(name, f"copy-{mode}")
                unpack(Path(name, f"archive-{mode}"), copy)
                assert stat.S_IMODE((copy / "closed").stat().st_mode) == mode
        finally:
            os.seteuid(0)
        secret = copy / "closed/secret"
        assert (secret.read_text(), stat.S_IMODE(secret.stat().st_mode)) == ("s", 0)
        assert secret.stat().st_uid == NOBODY


def test_extended_attributes(top: Path, copy: Callable[[], Path]) -> None:
    (top / "file").touch()
    try:
        os.setxattr(top / "file", "user.test", b"\x00\xff=\n")
    except OSError:
        pytest.skip("this file system has no extended attributes")
    assert os.getxattr(copy() / "file", "user.test") == b"\x00\xff=\n"


@as_root
def test_owners_and_what_the_overlay_removed(top: Path, copy: Callable[[], Path]) -> None:
    os.mknod(top / "gone", stat.S_IFCHR, 0)
    (top / "file").touch()
    os.chown(top / "file", 524288 + 1000, 524288 + 1001)
    there = copy()
    assert stat.S_ISCHR((there / "gone").stat().st_mode)
    assert (there / "gone").stat().st_rdev == 0
    assert (there / "file").stat().st_uid == 524288 + 1000


def test_pipes_are_kept_and_sockets_are_not(top: Path, copy: Callable[[], Path]) -> None:
    os.mkfifo(top / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(top / "socket"))
        assert [path.name for path in copy().iterdir()] == ["pipe"]


def test_more_than_the_disk_is_refused(top: Path, tmp_path: Path) -> None:
    with (top / "sparse").open("wb") as file:
        file.truncate(MUCH + 1)
    with pytest.raises(OSError, match="larger than the VM's disk"):
        pack(top, tmp_path / "archive", MUCH)


def test_folders_without_end_are_refused(top: Path, tmp_path: Path) -> None:
    folder = top
    for _ in range(200):
        folder /= "d"
        folder.mkdir()
    with pytest.raises(OSError, match="folders are in each other"):
        pack(top, tmp_path / "archive", MUCH)


def test_an_archive_that_leads_out_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "archive", "w") as archive:
        link = tarfile.TarInfo("./out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("./out/file"))
    with pytest.raises(OSError, match="damaged"):
        unpack(tmp_path / "archive", tmp_path / "copy")
    assert not (tmp_path / "file").exists()


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(b"nonsense" * 200)
    with pytest.raises(OSError, match="damaged"):
        unpack(tmp_path / "archive", tmp_path / "copy")
