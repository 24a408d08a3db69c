"""Where everything lives: https://specifications.freedesktop.org/basedir-spec/latest/."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.errors import UsageError
from cloche.places import DOORS, daemon_folder, runtime_folder, user_folder

if TYPE_CHECKING:
    from collections.abc import Mapping


def config_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell the folder of the user's own configuration."""
    return _xdg(environ, "XDG_CONFIG_HOME", ".config")


def data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell the folder of what is worth keeping and can be large: images, templates."""
    return _xdg(environ, "XDG_DATA_HOME", ".local/share")


def runs_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell the folder of runs that can go on: beside the templates and images that their snapshots have links to."""
    return data_dir(environ) / "runs"


def state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell the folder of what a run leaves: history, logs."""
    return _xdg(environ, "XDG_STATE_HOME", ".local/state")


def runtime_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Make (mode 0700) and return the folder of what lives as long as processes do: sockets, locks.

    See ``places.runtime_folder`` for where that is, and why.
    """
    return _private(Path(runtime_folder(environ)))


def sessions_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell the folder that counts the sessions of this user on this machine."""
    return runtime_dir(environ) / "sessions"


def daemon_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Make (mode 0700) and return the folder of the daemon's sockets and lock."""
    runtime_dir(environ)
    return _private(Path(daemon_folder(environ)))


def doors_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell the folder of the sockets by which `cloche shell` comes to runs."""
    return runtime_dir(environ) / DOORS


def vms_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Tell the folder of live VMs, with their disks: on disk, since the runtime folder often is memory."""
    return state_dir(environ) / "vms"


def _xdg(environ: Mapping[str, str], name: str, otherwise: str) -> Path:
    return Path(user_folder(environ, name, otherwise))


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
