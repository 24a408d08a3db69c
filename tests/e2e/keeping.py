"""Places whose runs are kept apart from this machine's own, with its images and templates all the same."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloche.config import data_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.place import Place

_SHARED = ("images", "kvm.json", "locks", "refs", "templates")


@contextlib.contextmanager
def runs_of_its_own(place: Place) -> Iterator[Path]:
    """Give a place a folder for runs of its own, on the file system of images and templates; it is empty in the end."""
    top = data_dir() / "tmp"
    top.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=top, prefix="runs-") as folder:
        ours = Path(folder, "cloche")
        ours.mkdir()
        for name in _SHARED:
            (ours / name).symlink_to(data_dir() / name)
        place.env["XDG_DATA_HOME"] = folder
        place.env["CLOCHE_NO_DAEMON"] = "1"
        yield ours / "runs"


def listed(place: Place) -> list[dict[str, Any]]:
    """What ``cloche runs`` lists."""
    ended = place.run("runs", "--output", "json")
    assert ended.code == 0, ended
    told: list[dict[str, Any]] = json.loads(ended.stdout)
    return told


def forget(runs: Path) -> None:
    """Remove what is kept."""
    shutil.rmtree(runs, ignore_errors=True)
