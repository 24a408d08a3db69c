"""Where everything lives: https://specifications.freedesktop.org/basedir-spec/latest/."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping


USER_RUNTIME = "/run/user/{uid}"
"""Where systemd puts the runtime folder, for processes that were not told (cron's)."""


def config_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell the folder of the user's own configuration."""
    return _xdg(environ, "XDG_CONFIG_HOME", ".config")


def data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell the folder of what is worth keeping and can be large: images, templates."""
    return _xdg(environ, "XDG_DATA_HOME", ".local/share")


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell the folder of what a run leaves: history, logs."""
    return _xdg(environ, "XDG_STATE_HOME", ".local/state")


def runtime_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Make (mode 0700) and return the folder of what lives as long as processes do: sockets, locks.

    It must be the same for every process of this user on this machine, cron's and ssh's included: that makes
    the session limit hold. So: XDG_RUNTIME_DIR, else /run/user/UID, if ours; else a folder of the state's.
    """
    given = Path(environ.get("XDG_RUNTIME_DIR", ""))
    for folder in (given, Path(USER_RUNTIME.format(uid=os.getuid()))):
        if folder.is_absolute() and folder.is_dir() and folder.stat().st_uid == os.getuid():
            return _private(folder / "cloche")
    return _private(state_dir(environ) / "run")


def sessions_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell the folder that counts the sessions of this user on this machine."""
    return runtime_dir(environ) / "sessions"


def vms_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell the folder of live VMs, with their disks: on disk, since the runtime folder often is memory."""
    return state_dir(environ) / "vms"


def _xdg(environ: Mapping[str, str], name: str, otherwise: str) -> Path:
    given = Path(environ.get(name, ""))
    if given.is_absolute():  # the specification: a relative one is to be ignored
        return given / "cloche"
    home = environ.get("HOME") or str(Path("~").expanduser())
    return Path(home) / otherwise / "cloche"


def _private(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid():
            if stat.S_IMODE(status.st_mode) != 0o700:  # noqa: PLR2004 - nobody else's business
                folder.chmod(0o700)
            return folder
    except OSError as wrong:
        raise UsageError(f"cannot make {folder}: {wrong.strerror}") from wrong
    raise UsageError(f"{folder} belongs to another user", hint="set XDG_RUNTIME_DIR to a folder of yours")
