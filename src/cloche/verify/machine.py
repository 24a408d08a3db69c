"""What a report says of the machine it was made on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from cloche.units import format_size

_DEADLINE = 20.0


def machine_facts() -> dict[str, str]:
    """Return facts by name: processor, memory, system, kernel, Python."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": f"{os.cpu_count()} of {_after_colon('/proc/cpuinfo', 'model name') or platform.machine()}",
        "memory": format_size(memory),
        "system": _system(),
        "host kernel": platform.release(),
        "Python": platform.python_version(),
    }


def program_version(program: str) -> str:
    """Return the first line that ``program --version`` says, or that it says none."""
    try:
        said = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=_DEADLINE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "not to be had"
    return (said.stdout.splitlines() or ["says nothing"])[0]


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def _after_colon(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
