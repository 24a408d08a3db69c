"""Disk space: asked for before, named after."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from cloche.errors import ImageError
from cloche.image import disk
from cloche.image.disk import allocated, check_space, explained
from cloche.image.store import ImageStore

PEBIBYTE = 1024**5


def test_too_little_space_names_place_need_and_what_is_free(tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=rf"about {PEBIBYTE // 2**20} MiB are needed in {tmp_path}/a/b, and \d+ MiB"
    ):
        check_space(tmp_path / "a" / "b", PEBIBYTE)


def test_enough_space_is_fine_even_where_nothing_exists_yet(tmp_path: Path) -> None:
    check_space(tmp_path / "a" / "b", 1)


def test_sizes_count_files_and_not_links(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"12345")
    (tmp_path / "d" / "b").write_bytes(b"123")
    (tmp_path / "d" / "l").symlink_to("a")
    assert allocated(tmp_path) == 8
    assert allocated(tmp_path / "d" / "a") == 5


def test_a_failure_keeps_its_words_and_names_the_log(tmp_path: Path) -> None:
    def fail() -> None:
        with explained(ImageStore(tmp_path), "x", 1) as log:
            log.write(b"what happened\n")
            raise ImageError("no such package", hint="try another")

    with pytest.raises(ImageError, match="image 'x': no such package") as caught:
        fail()
    hint = str(caught.value.hint)
    assert hint.startswith("try another; the log is ")
    assert Path(hint.rpartition(" ")[2]).read_bytes() == b"what happened\n"


def test_a_full_disk_is_called_that(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    with (
        pytest.raises(ImageError, match=r"the disk is full: about 7 MiB are needed"),
        explained(store, "x", 7 * 2**20),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_step_that_failed_with_next_to_no_space_left_failed_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "free_space", lambda _: 1024)
    with pytest.raises(ImageError, match="the disk is full"), explained(ImageStore(tmp_path), "x", 1):
        raise ImageError("tar failed with status 2: write error")
