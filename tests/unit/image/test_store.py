"""The store: names, kinds, what is visible when, and who may remove what."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import ImageError
from cloche.image.store import ImageStore

if TYPE_CHECKING:
    from cloche.image.model import Image, Kind

A, B = "a" * 64, "b" * 64


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


def add(store: ImageStore, digest: str, name: str, kind: Kind = "job", **manifest: object) -> Image:
    with store.workspace() as work:
        files = work / "files"
        files.mkdir()
        (files / "job.erofs").write_bytes(digest.encode())
        return store.commit(files, digest, {"kind": kind, "created": "2026-01-01", **manifest}, name)


def test_an_image_is_found_by_name_by_digest_and_by_its_beginning(store: ImageStore) -> None:
    add(store, A, "default", config={"env": {"A": "b"}, "user": "runner", "workdir": ""})
    for handle in ("default", A, A[:12]):
        image = store.resolve(handle, "job")
        assert image.digest == A
        assert image.job.read_bytes() == A.encode()
    assert image.env == {"A": "b"}
    assert image.user == "runner"
    assert image.workdir is None


def test_an_ambiguous_or_too_short_beginning_finds_nothing(store: ImageStore) -> None:
    add(store, A, "one")
    add(store, "a" * 20 + "b" * 44, "two")
    for handle in (A[:16], A[:11]):
        with pytest.raises(ImageError, match="no image named"):
            store.resolve(handle, "job")


def test_a_missing_image_says_what_to_type(store: ImageStore) -> None:
    with pytest.raises(ImageError, match="there is no image named 'default'") as caught:
        store.resolve("default", "job")
    assert caught.value.hint == "cloche image build"


def test_an_image_of_the_wrong_kind_is_refused(store: ImageStore) -> None:
    add(store, A, "system", "system")
    with pytest.raises(ImageError, match="'system' is a system image, and a job image is needed here"):
        store.resolve("system", "job")


@given(
    name=st.text(max_size=80) | st.sampled_from(["../images", "..", "/etc/passwd", "", ".", "a/b", "a\0b"])
)
def test_no_name_reaches_outside_the_store(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = ImageStore(tmp_path_factory.getbasetemp() / "nothing-here")
    with pytest.raises(ImageError, match="there is no image named"):
        store.resolve(name, "job")


@pytest.mark.parametrize("name", ["", "../x", "a b", "-x", ".x", "x" * 65, "c" * 12, A])
def test_bad_names_are_refused(store: ImageStore, name: str) -> None:
    with pytest.raises(ImageError, match="cannot name an image"):
        add(store, A, name)
    assert store.images() == []


def test_a_name_moves_to_another_image_at_once(store: ImageStore) -> None:
    add(store, A, "default")
    add(store, B, "default")
    assert store.resolve("default", "job").digest == B
    assert store.names() == {"default": B}
    assert [image.digest for image in store.images()] == [A, B]


def test_a_name_does_not_move_between_kinds(store: ImageStore) -> None:
    add(store, A, "system", "system")
    with pytest.raises(ImageError, match="'system' is the name of a system image, and this is a job image"):
        add(store, B, "system")
    assert store.resolve("system", "system").digest == A


def test_what_is_being_made_is_not_visible(store: ImageStore) -> None:
    with store.workspace() as work:
        (work / "manifest.json").write_text('{"kind": "job"}')
        assert store.images() == []
        assert store.names() == {}
    assert not work.exists()


def test_an_image_that_is_there_stays_when_it_is_committed_again(store: ImageStore) -> None:
    first = add(store, A, "one", created="first")
    again = add(store, A, "two", created="second")
    assert again.manifest == first.manifest
    assert store.names() == {"one": A, "two": A}


def test_files_go_with_the_last_name(store: ImageStore) -> None:
    path = add(store, A, "one").path
    add(store, A, "two")
    store.remove("one")
    assert path.exists()
    store.remove("two")
    assert not path.exists()
    with pytest.raises(ImageError, match="there is no image named 'two'"):
        store.remove("two")


def test_an_image_in_use_is_not_removed(store: ImageStore) -> None:
    image = add(store, A, "one")
    with image.hold():
        with pytest.raises(ImageError, match="image 'one' is in use"):
            store.remove("one")
        assert store.resolve("one", "job").job.exists()
    store.remove("one")
    assert not image.path.exists()


def test_gc_removes_what_has_no_name_and_no_user(store: ImageStore) -> None:
    old = add(store, A, "default")
    new = add(store, B, "default")
    with old.hold():
        assert store.gc() == []
    assert store.gc() == [old.path]
    assert new.path.exists()
    assert store.gc() == []


def test_gc_without_a_store_has_nothing_to_do(store: ImageStore) -> None:
    assert store.gc() == []
    assert not store.root.exists()


def test_gc_collects_what_a_killed_builder_left_and_nothing_of_a_living_one(store: ImageStore) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from cloche.image.store import ImageStore\n"
        "with ImageStore(Path(sys.argv[1])).workspace() as work:\n"
        "    (work / 'half').write_text('built')\n"
        "    print(work, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, store.root],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    leftover = Path(killed.stdout.strip())
    assert (leftover / "half").exists()
    with store.workspace() as alive:
        assert store.gc() == [leftover]
        assert alive.exists()
    assert not leftover.exists()


def test_gc_keeps_the_newest_logs(store: ImageStore) -> None:
    paths = []
    for number in range(25):
        with store.log("topic") as (path, file):
            file.write(b"x")
        os.utime(path, (number, number))
        paths.append(path)
    assert set(store.gc()) == set(paths[:5])
    assert all(path.exists() for path in paths[5:])


def test_a_damaged_image_or_name_is_as_if_it_were_not_there(store: ImageStore) -> None:
    image = add(store, A, "one")
    (image.path / "manifest.json").write_text('{"kind": "nonsense"}')
    assert store.images() == []
    with pytest.raises(ImageError, match="no image named 'one'"):
        store.resolve("one", "job")
    (store.root / "refs" / "one").write_text("../../etc")
    assert store.names() == {}


def test_a_second_builder_waits_only_until_its_deadline(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloche.image.store.LOCK_DEADLINE", 0.0)
    with (
        store.building(A),
        pytest.raises(ImageError, match="another process is making the same image, for more than 0 s now"),
        store.building(A),
    ):
        pass
    with store.building(A):
        pass


def test_a_store_that_cannot_be_written_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ImageError, match="cannot write the image store") as caught,
        ImageStore(tmp_path / "file").workspace(),
    ):
        pass
    assert "XDG_DATA_HOME" in str(caught.value.hint)


def test_nobody_else_can_reach_the_setuid_programs_of_a_tree(store: ImageStore) -> None:
    add(store, A, "one")
    assert store.root.stat().st_mode & 0o077 == 0
