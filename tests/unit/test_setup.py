"""``packaging/setup``, on machines made of a few scripts that stand for the system's programs."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIST = "git  # for sources\n\n# a comment\nqemu-system-x86\nqemu-utils\n"


@dataclass
class Machine:
    """A clone, and a folder of programs beside the shell's everyday ones."""

    clone: Path
    programs: Path

    def program(self, name: str, script: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def setup(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.clone / "packaging" / "setup"],
            env={"PATH": str(self.programs), "HOME": str(self.clone)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    @property
    def log(self) -> list[str]:
        """What apt-get and packaging/venv were called with, in order."""
        path = self.clone / "log"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Make a Debian machine whose user is not root, on which git is all that is installed."""
    made = Machine(tmp_path / "clone", tmp_path / "bin")
    packaging = made.clone / "packaging"
    packaging.mkdir(parents=True)
    made.programs.mkdir()
    shutil.copy(ROOT / "packaging" / "setup", packaging)
    (packaging / "apt.txt").write_text(LIST)
    (packaging / "venv").write_text(f'#!/bin/sh\necho venv >>"{made.clone}/log"\n')
    (packaging / "venv").chmod(0o755)
    for name in ("sh", "dirname", "sed", "grep", "env"):
        (made.programs / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name}"))
    made.program("id", "echo 1000")
    made.program("dpkg-query", 'echo "git installed"; echo "qemu-utils config-files"; exit 1')
    made.program("apt-get", f'echo "apt-get $*" >>"{made.clone}/log"')
    return made


def test_with_all_there_it_goes_on_to_the_dependencies(machine: Machine) -> None:
    machine.program("dpkg-query", "for name in git qemu-system-x86 qemu-utils; do echo $name installed; done")
    result = machine.setup()
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert machine.log == ["venv"]


def test_root_installs_what_is_missing_and_nothing_else(machine: Machine) -> None:
    machine.program("id", "echo 0")
    result = machine.setup()
    assert result.returncode == 0, result.stderr
    update, install, last = machine.log
    assert update.endswith(" update")
    assert install.endswith(" install --no-install-recommends --yes qemu-system-x86 qemu-utils")
    assert last == "venv"
    assert "apt-get install --no-install-recommends --yes qemu-system-x86 qemu-utils" in result.stdout


def test_old_package_lists_do_not_stop_it(machine: Machine) -> None:
    machine.program("id", "echo 0")
    machine.program("apt-get", f'echo "$*" >>"{machine.clone}/log"; case $* in *update) exit 100 ;; esac')
    result = machine.setup()
    assert result.returncode == 0
    assert "could not be renewed" in result.stderr
    assert machine.log[-1] == "venv"


def test_a_failed_installation_ends_it(machine: Machine) -> None:
    machine.program("id", "echo 0")
    machine.program("apt-get", "case $* in *install*) exit 100 ;; esac")
    assert machine.setup().returncode == 100
    assert machine.log == []


def test_sudo_installs_where_it_asks_nothing(machine: Machine) -> None:
    machine.program("sudo", f'[ "$1" = -n ] && shift; echo sudo >>"{machine.clone}/log"; "$@"')
    result = machine.setup()
    assert result.returncode == 0, result.stderr
    assert machine.log[-1] == "venv"
    assert machine.log.count("sudo") >= 2


@pytest.mark.parametrize("sudo", [None, "exit 1"], ids=["without sudo", "sudo wants a password"])
def test_who_may_not_install_is_told_what_to_type(machine: Machine, sudo: str | None) -> None:
    if sudo:
        machine.program("sudo", sudo)
    result = machine.setup()
    assert result.returncode == 1
    assert machine.log == []
    line = result.stderr.splitlines()[-1]
    assert line.endswith(": apt-get install --no-install-recommends --yes qemu-system-x86 qemu-utils")


def test_elsewhere_it_names_the_packages_and_goes_on(machine: Machine) -> None:
    (machine.programs / "dpkg-query").unlink()
    result = machine.setup()
    assert result.returncode == 0
    assert result.stderr.strip().endswith("git qemu-system-x86 qemu-utils")
    assert machine.log == ["venv"]
