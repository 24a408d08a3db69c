"""The step loop cannot reach what makes VMs, and this room is quick to import."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded_by(module: str) -> set[str]:
    program = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["cloche.execution.steps", "cloche.execution.jobs"])
def test_steps_and_jobs_load_nothing_that_could_allocate(module: str) -> None:
    rooms = ("cloche.session", "cloche.pool", "cloche.image", "cloche.vm.provider", "cloche.vm.fake")

    assert not [name for name in loaded_by(module) if name.startswith(rooms)]


def test_the_room_loads_nothing_heavy() -> None:
    heavy = {"rich", "click", "pydantic", "sqlalchemy", "tarfile", "http", "email", "urllib.request"}

    assert not heavy & loaded_by("cloche.execution.executor")
