"""A process and its descendants, by /proc (proc(5)): for kernels that give us no control group."""

from __future__ import annotations

import contextlib
import os
import signal

_ROUNDS = 16


def signal_tree(root: int, number: int) -> None:
    """Send ``number`` to ``root`` and all its descendants.

    For SIGKILL the tree is stopped first, again and again until it no longer grows, so that processes which
    fork meanwhile do not escape.
    """
    if number == signal.SIGKILL:
        stopped: set[int] = set()
        for _ in range(_ROUNDS):
            fresh = descendants(root) - stopped
            if not fresh:
                break
            _send(fresh, signal.SIGSTOP)
            stopped |= fresh
    _send(descendants(root), number)


def _send(pids: set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def descendants(root: int) -> set[int]:
    """``root`` and everything below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            parent = _parent(entry)
            if parent is not None:
                children.setdefault(parent, []).append(int(entry))
    found, queue = {root}, [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def _parent(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read(4096)
    except OSError:
        return None
    return int(stat.rpartition(b")")[2].split()[1])  # the name, in parentheses, may hold anything
