from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from cloche import places
from cloche.config import config_dir, data_dir, runtime_dir, sessions_dir, state_dir, vms_dir
from cloche.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_folders_below_home(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    assert config_dir(environ) == tmp_path / ".config/cloche"
    assert data_dir(environ) == tmp_path / ".local/share/cloche"
    assert state_dir(environ) == tmp_path / ".local/state/cloche"
    assert vms_dir(environ) == tmp_path / ".local/state/cloche/vms"


def test_folders_by_variable(tmp_path: Path) -> None:
    environ = {"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": "relative"}
    assert config_dir(environ) == tmp_path / "cloche"
    assert str(data_dir(environ)) == "/nowhere/.local/share/cloche"


def test_without_home_the_user_still_has_one() -> None:
    assert data_dir({}).is_absolute()


def test_the_runtime_folder_is_private(tmp_path: Path) -> None:
    folder = runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert folder == tmp_path / "cloche"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    assert stat.S_IMODE(runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)}).stat().st_mode) == 0o700
    assert sessions_dir({"XDG_RUNTIME_DIR": str(tmp_path)}).parent == folder


def test_a_runtime_folder_that_is_not_there_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "USER_RUNTIME", str(tmp_path / "run-user-{uid}"))
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "gone")}
    assert runtime_dir(environ) == tmp_path / ".local/state/cloche/run"
    usual = tmp_path / f"run-user-{os.getuid()}"
    usual.mkdir()
    assert runtime_dir(environ) == runtime_dir({"HOME": str(tmp_path)}) == usual / "cloche"


def test_what_is_not_a_folder_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cloche").symlink_to("/tmp")
    with pytest.raises(UsageError, match="another user"):
        runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)})


def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "cloche").touch()
    with pytest.raises(UsageError, match="cannot make"):
        runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)})
