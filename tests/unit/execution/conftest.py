"""What the tests of this room share."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def conformance() -> Callable[[str], list[dict[str, Any]]]:
    """Read a file of the conformance data; skips the test where there is none."""
    folder = os.environ.get("CLOCHE_CONFORMANCE")

    def load(name: str) -> list[dict[str, Any]]:
        if not folder:
            pytest.skip("CLOCHE_CONFORMANCE names no folder of conformance data")
        rows: list[dict[str, Any]] = json.loads(Path(folder, name).read_text("utf-8"))
        return rows

    return load


@dataclass(frozen=True)
class Repository:
    """A git repository of the test's own."""

    path: Path

    def git(self, *arguments: str) -> str:
        """Run git in it."""
        command = ["git", "-C", str(self.path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    def commit(self, message: str, files: dict[str, str]) -> str:
        """Write files, commit all of them, and return the commit's id."""
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.git("add", "--all")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """An empty repository, out of reach of the machine's git configuration."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Mona")
    monkeypatch.setenv("GIT_COMMITTER_NAME", "Mona")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "mona@example.org")
    monkeypatch.setenv("GIT_COMMITTER_EMAIL", "mona@example.org")
    path = tmp_path / "repository"
    path.mkdir()
    made = Repository(path)
    made.git("init", "-q", "-b", "main")
    return made
