"""A process and its descendants, by /proc (proc(5)): for kernels that give us no control group."""

from __future__ import annotations

import contextlib
import os
import signal
import time

_DEADLINE = 0.5  # seconds for a tree to stop growing
_PAUSE = 0.001
_AT_REST = b"TtZX"
# What stops and goes itself, or means nothing: taking the tree to rest first would undo it.
_PLAIN = {0, signal.SIGCONT, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


def signal_tree(root: int, number: int) -> None:
    """Send ``number`` to ``root`` and all its descendants.

    The tree is stopped first, so that no process which is being forked meanwhile escapes: a shell's trap for
    SIGINT would wait for it.
    """
    if number in _PLAIN:
        _send(descendants(root), number)
        return
    stopped = _stop(root)
    _send(stopped, number)
    if number != signal.SIGKILL:
        _send(stopped, signal.SIGCONT)


def _stop(root: int) -> set[int]:
    stopped: set[int] = set()
    until = time.monotonic() + _DEADLINE
    while True:
        found = _tree(root)
        fresh = found.keys() - stopped
        if not fresh and all(state in _AT_REST for state in found.values()):
            return stopped
        _send(fresh, signal.SIGSTOP)
        stopped |= fresh
        if time.monotonic() > until:
            return stopped
        if not fresh:
            time.sleep(_PAUSE)


def _send(pids: set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def descendants(root: int) -> set[int]:
    """``root``, everything below it, and what its session holds besides, whose parents may have ended."""
    return set(_tree(root))


def _tree(root: int) -> dict[int, bytes]:
    """Those processes, and their states."""
    children: dict[int, list[int]] = {}
    states: dict[int, bytes] = {}
    for entry in os.listdir("/proc"):
        status = _status(entry) if entry.isdecimal() else None
        if status is not None:
            pid = int(entry)
            states[pid], parent, session = status
            children.setdefault(root if session == root else parent, []).append(pid)
    found, queue = {root: states.get(root, b"X")}, [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found[child] = states[child]
                queue.append(child)
    return found


def _status(pid: str) -> tuple[bytes, int, int] | None:
    """State, parent and session."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read(4096)
    except OSError:
        return None
    # The name, in parentheses, may hold anything.
    state, parent, _group, session, *_ = stat.rpartition(b")")[2].split()
    return state, int(parent), int(session)
