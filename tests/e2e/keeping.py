"""Places whose runs are kept apart from this machine's own, with its images and templates all the same."""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloche.config import data_dir
from tests.e2e.place import beside_images

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from tests.e2e.place import Place

_SHARED = ("images", "kvm.json", "locks", "refs", "templates")


@contextlib.contextmanager
def runs_of_its_own(place: Place) -> Iterator[Path]:
    """Give a place a folder for runs of its own, on the file system of images and templates; it is empty in the end."""
    top = beside_images("runs")
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


class Killed:
    """Rounds of runs that are killed somewhere in their life, and gone on with; the last step of a run fails.

    ``run`` is the arguments of a run with snapshots before each step, ``env`` what it needs.
    """

    def __init__(self, place: Place, random: Random, *run: str, env: dict[str, str]) -> None:
        self.place = place
        self.random = random
        self.run = ("run", *run)
        self.env = env

    def rounds(self, number: int, longest: float) -> None:
        """Do so many, each kill within so many seconds, with a look at everything after each."""
        for _ in range(number):
            self._kill_after(longest, *self.run)
            if runs := listed(self.place):
                cut = self.random.choice(runs[0]["cuts"])
                ended = self.place.run("rewind", "--output", "jsonl", runs[0]["run"], "--to", cut["to"])
                assert (ended.code, ended.one("run.rewound")["step"]) == (1, cut["step"]), ended
                self._kill_after(longest, "rewind", runs[0]["run"])
            self._look()

    def _kill_after(self, longest: float, *command: str) -> None:
        """Kill a command, and nothing it started."""
        with self.place.start(*command, "--output", "jsonl", env=self.env) as running:
            time.sleep(self.random.uniform(0.1, longest))
            if running.process.poll() is None:
                running.kill()
            assert "Traceback" not in running.end().stderr

    def _look(self) -> None:
        found = listed(self.place)
        folder = Path(self.place.env["XDG_DATA_HOME"], "cloche/runs")
        assert [told["run"] for told in found if told["live"]] == []
        assert {path.name for path in folder.glob("*")} == {told["run"] for told in found}
        for told in found:
            there = {path.name for path in (folder / told["run"]).iterdir()} - {".new", ".gone"}
            assert len(there) == len(told["cuts"]) + len(("run.json", "lock"))
