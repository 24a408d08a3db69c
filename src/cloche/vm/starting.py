"""Starting a program that never outlives Cloche. Needs no event loop, and imports none."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from cloche.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNLESS_ORPHANED = '[ "$PPID" = "$0" ] && exec "$@"'


def start_watched(
    argv: Sequence[str], pass_fds: Sequence[int] = (), stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start ``argv`` without output, its errors in a pipe. ProviderError if that cannot be done here.

    setpriv(1) asks the kernel for our death to be its death; doing so between fork and exec here would
    cost Python its fast way of starting programs. The shell then sees whether we died before that.
    """
    watched = ["setpriv", "--pdeathsig", "KILL", "--", "sh", "-c", _UNLESS_ORPHANED, str(os.getpid())]
    try:
        return subprocess.Popen(
            [*watched, *argv],
            pass_fds=pass_fds,
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError:
        raise ProviderError("setpriv is not installed", hint="apt-get install util-linux") from None
