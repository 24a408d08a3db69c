"""Which templates ``cloche gc`` takes away."""

from __future__ import annotations

import fcntl
import json
import os
import time
from typing import TYPE_CHECKING

from cloche.vm.qemu.template import collect_templates

if TYPE_CHECKING:
    from pathlib import Path


def make(root: Path, name: str, *, system: str = "s1", job: str = "j1", age: float = 0) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "memory").write_bytes(b"ram")
    (folder / "template.json").write_text(json.dumps({"system": system, "job": job}))
    os.utime(folder, (time.time() - age, time.time() - age))
    return folder


def test_used_templates_of_existing_images_stay(tmp_path: Path) -> None:
    kept = make(tmp_path, "a")

    assert collect_templates(tmp_path, {"s1", "j1"}) == []
    assert kept.exists()


def test_templates_of_images_that_are_gone_go(tmp_path: Path) -> None:
    orphan = make(tmp_path, "a", job="gone")

    assert collect_templates(tmp_path, {"s1", "j1"}) == [orphan]
    assert not orphan.exists()


def test_templates_not_used_for_long_go(tmp_path: Path) -> None:
    make(tmp_path, "fresh", age=50)
    old = make(tmp_path, "old", age=150)

    assert collect_templates(tmp_path, {"s1", "j1"}, unused_for=100) == [old]


def test_half_made_templates_go_unless_their_maker_lives(tmp_path: Path) -> None:
    dead, alive = tmp_path / "dead.unfinished", tmp_path / "alive.unfinished"
    dead.mkdir()
    alive.mkdir()
    with (tmp_path / "alive.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert collect_templates(tmp_path, set()) == [dead]
    assert alive.exists()


def test_no_templates_at_all(tmp_path: Path) -> None:
    assert collect_templates(tmp_path / "missing", set()) == []
