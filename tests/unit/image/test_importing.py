"""Imports, whole: archives become job images; hostile ones become errors and touch nothing outside."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cloche.errors import ImageError
from cloche.image import importing
from cloche.image.arch import host_architecture
from cloche.image.importing import import_oci, import_rootfs
from cloche.image.oci import OciImage
from cloche.image.process import as_root, require
from cloche.image.store import ImageStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cloche.image.model import Image

pytestmark = pytest.mark.sandbox


class Entry(NamedTuple):
    """A member of an archive to be; what differs from a plain file of root."""

    name: str
    content: bytes = b""
    type: bytes = tarfile.REGTYPE
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = 1_000_000


def directory(name: str, mode: int = 0o755, **more: int) -> Entry:
    return Entry(name, type=tarfile.DIRTYPE, mode=mode, **more)  # type: ignore[arg-type] # uid and gid


def symlink(name: str, target: str) -> Entry:
    return Entry(name, type=tarfile.SYMTYPE, link=target, mode=0o777)


def hardlink(name: str, target: str) -> Entry:
    return Entry(name, type=tarfile.LNKTYPE, link=target)


def tar(*entries: Entry) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            member = tarfile.TarInfo(entry.name)
            member.type, member.linkname, member.mode = entry.type, entry.link, entry.mode
            member.uid, member.gid, member.mtime = entry.uid, entry.gid, entry.mtime
            member.size = len(entry.content)
            archive.addfile(member, io.BytesIO(entry.content))
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _needs_root() -> None:
    try:
        require("mkfs.erofs")
        subprocess.run(as_root(["true"]), check=True, timeout=20, capture_output=True)
    except (ImageError, subprocess.CalledProcessError) as error:
        pytest.skip(f"images cannot be imported here: {error}")


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def bring(store: ImageStore, tmp_path: Path) -> Callable[..., Image]:
    """Import some entries (or the bytes of an archive) as the root filesystem ``it``."""

    def bring(*entries: Entry, data: bytes = b"", max_bytes: int = 10**7) -> Image:
        archive = tmp_path / "rootfs.tar"
        archive.write_bytes(data or tar(*entries))
        return import_rootfs(store, archive, "it", max_bytes=max_bytes)

    return bring


def test_an_archive_becomes_a_job_image(bring: Callable[..., Image], store: ImageStore) -> None:
    image = bring(
        directory("./"),
        directory("./bin"),
        Entry("./bin/tool", b"#!/bin/sh\n", mode=0o4755),
        symlink("./bin/alias", "tool"),
        hardlink("./bin/twin", "./bin/tool"),
    )
    tool = image.tree / "bin" / "tool"
    assert store.resolve("it", "job") == image
    assert tool.read_bytes() == b"#!/bin/sh\n"
    assert tool.stat().st_mode & 0o7777 == 0o4755
    assert tool.stat().st_mtime == 1_000_000
    assert (image.tree / "bin" / "alias").readlink() == Path("tool")
    assert (image.tree / "bin" / "twin").samefile(tool)
    assert image.job.read_bytes()[1024:1028] == struct.pack("<I", 0xE0F5E1E2)  # erofs' magic number
    assert image.user is None


def test_the_places_of_mounts_are_there(bring: Callable[..., Image]) -> None:
    image = bring(Entry("a"))
    assert {path.name for path in image.tree.iterdir()} == {"a", "dev", "proc", "run", "sys", "tmp"}
    assert (image.tree / "tmp").stat().st_mode & 0o7777 == 0o1777


@pytest.mark.skipif(os.geteuid() != 0, reason="others see owners through a user namespace only")
def test_owners_are_kept(bring: Callable[..., Image]) -> None:
    image = bring(directory("home", uid=1001, gid=1002), Entry("home/file", uid=5, gid=6))
    assert ((image.tree / "home").stat().st_uid, (image.tree / "home").stat().st_gid) == (1001, 1002)
    assert (image.tree / "home" / "file").stat().st_uid == 5


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_archives_may_be_compressed(bring: Callable[..., Image], compress: Callable[[bytes], bytes]) -> None:
    assert (bring(data=compress(tar(Entry("a", b"content")))).tree / "a").read_bytes() == b"content"


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_archives_may_be_compressed_by_zstd(bring: Callable[..., Image]) -> None:
    data = subprocess.run(
        ["zstd", "--stdout"], input=tar(Entry("a", b"content")), capture_output=True, check=True, timeout=20
    ).stdout
    assert (bring(data=data).tree / "a").read_bytes() == b"content"
    with pytest.raises(ImageError, match="zstd cannot decompress it"):
        bring(data=data[:20] + b"spoilt" + data[26:])


def test_the_same_archive_is_imported_once(bring: Callable[..., Image], store: ImageStore) -> None:
    first, second = bring(Entry("a")), bring(Entry("a"))
    assert first == second
    assert len(store.images()) == 1


def test_devices_and_pipes_are_left_out_and_counted(bring: Callable[..., Image]) -> None:
    image = bring(
        Entry("a"),
        Entry("dev/sda", type=tarfile.BLKTYPE),
        Entry("tty", type=tarfile.CHRTYPE),
        Entry("p", type=tarfile.FIFOTYPE),
    )
    assert image.manifest["skipped"] == 3
    assert not (image.tree / "tty").exists()


HOSTILE = {
    "climbs": ([Entry("../escaped")], "not a path inside an archive"),
    "climbs in the middle": ([Entry("a/../../escaped")], "not a path inside an archive"),
    "links to what climbs": ([hardlink("a", "../escaped")], "not a path inside an archive"),
    "links to nothing": ([hardlink("a", "/etc/passwd")], "No such file"),
    "owner out of range": ([Entry("a", uid=2**33)], "ids that cannot be had here"),
    "root is a file": ([Entry(".")], "its root is not a directory"),
    "file for a parent": ([Entry("a"), Entry("a/b")], "File exists|Not a directory"),
    "endless link": ([symlink("a", "a"), Entry("a/b")], "Too many levels|File exists"),
    "too large": ([Entry("a", bytes(10**7))], "larger than 10000000 bytes"),
    "nothing in it": ([Entry("tty", type=tarfile.CHRTYPE)], "there are no files in it"),
}


@pytest.mark.parametrize(("entries", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_archive_is_refused(
    bring: Callable[..., Image], store: ImageStore, tmp_path: Path, entries: Sequence[Entry], reason: str
) -> None:
    with pytest.raises(ImageError, match=rf"image 'it': .*({reason})"):
        bring(*entries)
    assert store.images() == []
    assert list((store.root / "tmp").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"rootfs.tar", "store"}


def test_links_out_of_the_tree_lead_back_into_it(bring: Callable[..., Image], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = str(outside).lstrip("/")
    image = bring(
        directory(inside),
        symlink("absolute", str(outside)),
        Entry("absolute/one", b"1"),
        symlink("climbing", "../" * 40 + inside),
        Entry("climbing/two", b"2"),
    )
    assert list(outside.iterdir()) == []
    assert {path.name for path in (image.tree / inside).iterdir()} == {"one", "two"}


def test_a_link_is_replaced_and_not_followed_by_a_file_of_its_name(
    bring: Callable[..., Image], tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    image = bring(symlink("a", str(victim)), Entry("a", b"theirs"))
    assert victim.read_text() == "mine"
    assert (image.tree / "a").read_bytes() == b"theirs"
    assert not (image.tree / "a").is_symlink()


def test_a_bomb_is_refused_while_it_unpacks(bring: Callable[..., Image]) -> None:
    data = gzip.compress(tar(Entry("zeros", bytes(50_000_000))))
    assert len(data) < 100_000
    with pytest.raises(ImageError, match="larger than 10000000 bytes"):
        bring(data=data)


def test_zeros_after_the_end_count_too(bring: Callable[..., Image]) -> None:
    with pytest.raises(ImageError, match="larger than 10000000 bytes"):
        bring(data=gzip.compress(tar(Entry("a")) + bytes(50_000_000)))


def test_a_header_that_wants_all_memory_is_refused(bring: Callable[..., Image]) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type = tarfile.XHDTYPE
    header.size = 7 * 1024**3
    zeros = gzip.compress(bytes(2**26), 1)
    with pytest.raises(ImageError, match="its headers take too much memory"):
        bring(data=gzip.compress(header.tobuf(tarfile.USTAR_FORMAT)) + 16 * zeros, max_bytes=2**40)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:700],
        lambda data: data[:1024] + b"x" * 512 + data[1536:],
        lambda _: b"not an archive at all" * 100,
        lambda data: gzip.compress(data)[:-20],
        lambda data: gzip.compress(data)[:30] + b"spoilt" + gzip.compress(data)[36:],
        lambda _: b"\x1f\x8bnonsense",
        lambda _: b"\xfd7zXZ\0nonsense",
    ],
)
def test_a_damaged_archive_is_refused(
    bring: Callable[..., Image], store: ImageStore, spoil: Callable[[bytes], bytes]
) -> None:
    whole = tar(Entry("a", os.urandom(100)), Entry("b", os.urandom(2000)), Entry("c", os.urandom(100)))
    with pytest.raises(ImageError, match="image 'it': unpacking"):
        bring(data=spoil(whole))
    assert store.images() == []


def test_an_archive_that_is_not_there_is_an_error(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read .*absent\.tar: No such file"):
        import_rootfs(store, tmp_path / "absent.tar", "it")


def test_a_bad_name_is_refused_before_any_work(store: ImageStore, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot name an image"):
        import_rootfs(store, tmp_path / "absent.tar", "../it")


@pytest.fixture
def bring_layers(store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Image]:
    """Import layers, lowest first, as the image ``it``."""

    def bring(*layers: bytes, max_bytes: int = 10**7) -> Image:
        paths = []
        for number, layer in enumerate(layers):
            paths.append(tmp_path / f"layer{number}")
            paths[-1].write_bytes(gzip.compress(layer))
        config = {"env": {"A": "b"}, "user": "app", "workdir": "/app"}
        found = OciImage(digest=f"sha256:{len(layers)}", layers=paths, config=config)
        monkeypatch.setattr(importing, "read_layout", lambda *_: found)
        return import_oci(store, tmp_path, "it", max_bytes=max_bytes)

    return bring


def listing(image: Image) -> set[str]:
    made = {"dev", "proc", "run", "sys", "tmp"}
    return {str(path.relative_to(image.tree)) for path in image.tree.rglob("*")} - made


def test_upper_layers_cover_lower_ones(bring_layers: Callable[..., Image]) -> None:
    image = bring_layers(
        tar(
            directory("d"),
            Entry("d/kept", b"1"),
            Entry("d/changed", b"1"),
            Entry("was-file"),
            Entry("was-dir/x"),
        ),
        tar(Entry("d/changed", b"2"), directory("was-file"), Entry("was-dir", b"now a file")),
    )
    assert (image.tree / "d" / "kept").read_bytes() == b"1"
    assert (image.tree / "d" / "changed").read_bytes() == b"2"
    assert (image.tree / "was-file").is_dir()
    assert (image.tree / "was-dir").read_bytes() == b"now a file"
    assert (image.env, image.user, image.workdir) == ({"A": "b"}, "app", "/app")


def test_a_whiteout_removes_what_lies_below(bring_layers: Callable[..., Image]) -> None:
    image = bring_layers(
        tar(Entry("file"), directory("d"), Entry("d/a"), Entry("d/b"), directory("gone"), Entry("gone/x")),
        tar(Entry(".wh.file"), Entry("d/.wh.a"), Entry(".wh.gone"), Entry(".wh.never-was")),
    )
    assert listing(image) == {"d", "d/b"}


def test_an_opaque_directory_hides_what_lies_below_and_not_its_own(
    bring_layers: Callable[..., Image],
) -> None:
    image = bring_layers(
        tar(directory("d"), Entry("d/old"), directory("d/sub"), Entry("d/sub/old"), Entry("other")),
        tar(directory("d"), Entry("d/new"), Entry("d/sub/new"), Entry("d/.wh..wh..opq")),
    )
    assert listing(image) == {"d", "d/new", "d/sub", "d/sub/new", "other"}


def test_whiteouts_cannot_reach_outside(bring_layers: Callable[..., Image], tmp_path: Path) -> None:
    victim = tmp_path / "victims" / "file"
    victim.parent.mkdir()
    victim.write_text("mine")
    bring_layers(
        tar(symlink("out", str(victim.parent)), Entry("a")),
        tar(Entry("out/.wh.file"), Entry("out/.wh..wh..opq")),
    )
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("name", [".wh...", ".wh..", ".wh."])
def test_a_whiteout_of_the_root_or_above_is_refused(bring_layers: Callable[..., Image], name: str) -> None:
    with pytest.raises(ImageError, match="image 'it': unpacking layer1"):
        bring_layers(tar(Entry("a")), tar(Entry(name)))


def test_the_bound_is_for_all_layers_together(bring_layers: Callable[..., Image]) -> None:
    with pytest.raises(ImageError, match="larger than"):
        bring_layers(tar(Entry("a", bytes(6 * 10**6))), tar(Entry("b", bytes(6 * 10**6))))


def test_whiteouts_mean_nothing_in_a_root_filesystem(bring: Callable[..., Image]) -> None:
    image = bring(Entry("file"), Entry(".wh.file"))
    assert listing(image) == {"file", ".wh.file"}


def test_a_whole_layout_is_imported(store: ImageStore, tmp_path: Path) -> None:
    import hashlib
    import json

    root = tmp_path / "layout"
    (root / "blobs" / "sha256").mkdir(parents=True)
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(data: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (root / "blobs" / "sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    kind = "application/vnd.oci.image"
    config = {"os": "linux", "architecture": host_architecture().debian, "config": {"Env": ["PATH=/bin"]}}
    manifest = {
        "config": blob(json.dumps(config).encode(), f"{kind}.config.v1+json"),
        "layers": [blob(gzip.compress(tar(Entry("hello", b"world"))), f"{kind}.layer.v1.tar+gzip")],
    }
    entry = blob(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
    (root / "index.json").write_text(json.dumps({"manifests": [entry]}))
    image = import_oci(store, root, "it")
    assert (image.tree / "hello").read_bytes() == b"world"
    assert image.env == {"PATH": "/bin"}
    assert image.manifest["source"] == {"type": "oci", "digest": entry["digest"]}
