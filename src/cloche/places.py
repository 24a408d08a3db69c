"""Where the files of live processes are. Imports ``os`` alone: the thin client asks before anything is loaded."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DOORS = "doors"
"""The folder, below the runtime folder, of the sockets by which `cloche shell` comes to runs."""
USER_RUNTIME = "/run/user/{uid}"
"""Where systemd puts the runtime folder, for processes that were not told (cron's)."""


def runtime_folder(environ: Mapping[str, str]) -> str:
    """Tell the folder of what lives as long as processes do: sockets, locks. It may not be there yet.

    It must be the same for every process of this user on this machine, cron's and ssh's included: that makes
    the session limit hold. So: XDG_RUNTIME_DIR, else /run/user/UID, if ours; else a folder of the state's.
    """
    uid = os.getuid()
    for folder in (environ.get("XDG_RUNTIME_DIR", ""), USER_RUNTIME.format(uid=uid)):
        if folder.startswith("/") and _is_ours(folder, uid):
            return f"{folder.rstrip('/')}/cloche"
    return f"{user_folder(environ, 'XDG_STATE_HOME', '.local/state')}/run"


def user_folder(environ: Mapping[str, str], name: str, otherwise: str) -> str:
    """Tell Cloche's folder of a kind: below what the variable ``name`` says, else below ``otherwise`` at home.

    https://specifications.freedesktop.org/basedir-spec/latest/: a relative path is to be ignored.
    """
    given = environ.get(name, "")
    if not given.startswith("/"):
        given = f"{environ.get('HOME') or os.path.expanduser('~')}/{otherwise}"  # noqa: PTH111 - see the module's line
    return f"{given.rstrip('/')}/cloche"


def daemon_folder(environ: Mapping[str, str]) -> str:
    """Tell the folder of the daemon's sockets and lock."""
    return f"{runtime_folder(environ)}/daemon"


def _is_ours(folder: str, uid: int) -> bool:
    try:
        status = os.stat(folder)  # noqa: PTH116 - see the module's line
    except OSError:
        return False
    return status.st_uid == uid and status.st_mode & 0o170000 == 0o040000  # noqa: PLR2004 - S_IFMT, S_IFDIR
