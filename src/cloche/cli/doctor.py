"""``cloche doctor``: what this machine can do, and what to type to mend it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from cloche.errors import EXIT_NO_VM, ClocheError
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.image.store import ImageStore

Verdict = Literal["ok", "warning", "missing"]

_TOOL_DEADLINE = 20.0
_MIN_FREE = 6 * 1024**3
_MARKS = {"ok": "✓", "warning": "!", "missing": "✗"}
_PLAIN_MARKS = {"ok": "ok", "warning": "!!", "missing": "no"}


@record
class Finding:
    """One thing looked at; ``needed`` is false for what only some uses of Cloche need."""

    name: str
    verdict: Verdict
    detail: str
    mend: str | None = None
    needed: bool = True


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def doctor(as_json: bool) -> None:
    """Say what this machine can do, and what to type to mend it.

    Ends with 0 when a workflow can run in a VM here, with 3 when something that needs is missing.
    """
    findings = list(_look())
    able = all(f.verdict != "missing" or not f.needed for f in findings)
    if as_json:
        click.echo(json.dumps({"able": able, "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        _show(findings, able=able)
    if not able:
        raise SystemExit(EXIT_NO_VM)


def _show(findings: list[Finding], *, able: bool) -> None:
    unicode = "utf" in (sys.stdout.encoding or "").lower()
    marks = _MARKS if unicode else _PLAIN_MARKS
    width = max(len(f.name) for f in findings)
    for finding in findings:
        click.echo(f"{marks[finding.verdict]} {finding.name:<{width}}  {finding.detail}")
        if finding.mend and finding.verdict != "ok":
            click.echo(f"  {'':<{width}}  to mend it: {finding.mend}")
    click.echo("This machine can run workflows in VMs." if able else "This machine cannot run VMs yet.")


def _look() -> Iterator[Finding]:
    from cloche.config import data_dir
    from cloche.image.store import ImageStore

    store = ImageStore(data_dir())
    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")
    yield _tool("qemu", "qemu-system-x86_64", "apt-get install --no-install-recommends qemu-system-x86")
    yield _tool("qemu-img", "qemu-img", "apt-get install qemu-utils")
    yield from _images(store)
    yield _accelerator(store)
    yield _disk(data_dir())
    yield _host_groups()
    yield _tool("mmdebstrap", "mmdebstrap", "apt-get install mmdebstrap", needed=False)
    yield _tool("mkfs.erofs", "mkfs.erofs", "apt-get install erofs-utils", needed=False)
    yield _tool("git", "git", "apt-get install git", needed=False)
    yield _user_namespaces()


def _tool(name: str, program: str, mend: str, *, needed: bool = True) -> Finding:
    path = shutil.which(program)
    if path is None:
        return Finding(name, "missing", "not installed", mend, needed)
    if program == "mkfs.erofs":
        return Finding(name, "ok", path, needed=needed)
    try:
        result = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_TOOL_DEADLINE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, "missing", f"{path} does not run: {error}", mend, needed)
    first = (result.stdout or result.stderr).strip().splitlines()[:1]
    return Finding(name, "ok", first[0] if first else path, needed=needed)


def _images(store: ImageStore) -> Iterator[Finding]:
    from cloche.units import format_size

    for name, kind in (("system", "system"), ("default", "job")):
        try:
            image = store.resolve(name, kind)  # type: ignore[arg-type] # the pair above
        except ClocheError as error:
            yield Finding(f"image {name}", "missing", error.message, "cloche image build")
        else:
            file = image.system if kind == "system" else image.job
            detail = f"{image.digest[:12]}, {format_size(file.stat().st_size)}"
            yield Finding(
                f"image {name}", "ok", f"{detail}, kernel {image.release}" if kind == "system" else detail
            )


def _accelerator(store: ImageStore) -> Finding:
    from cloche.cli.compose import make_provider
    from cloche.vm.provider import VmSpec
    from cloche.vm.qemu.provider import QemuProvider

    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        why = "there is no /dev/kvm" if not Path("/dev/kvm").exists() else "/dev/kvm is not yours to open"
        return Finding(
            "kvm", "warning", f"{why}: VMs run in software emulation, CPU-bound steps 12 times slower", None
        )
    try:
        store.resolve("system", "system")
        provider = make_provider("qemu", lambda _text: None)
        assert isinstance(provider, QemuProvider)  # noqa: S101 - what that name makes
        accelerator = asyncio.run(provider.choose_accelerator(VmSpec()))
    except ClocheError as error:
        return Finding("kvm", "warning", f"not tried yet: {error.message}", error.hint)
    if accelerator == "kvm":
        return Finding("kvm", "ok", "boots a guest")
    return Finding("kvm", "warning", "/dev/kvm is there but boots no guest: VMs run in software emulation")


def _disk(folder: Path) -> Finding:
    from cloche.units import format_size

    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{format_size(free)} free at {folder}"
    if free < _MIN_FREE:
        return Finding(
            "disk", "warning", detail, f"free {format_size(_MIN_FREE)}, or set XDG_DATA_HOME elsewhere"
        )
    return Finding("disk", "ok", detail)


def _host_groups() -> Finding:
    """QEMU is bounded from outside too, where this host lets us."""
    from cloche.vm.hostgroups import find

    found = find()
    if found.group is None:
        mend = "systemd-run --user --scope -p Delegate=yes cloche …, or Delegate=yes in the daemon's service"
        detail = f"VMs get none on this host: {found.problem}. Their own size bounds them all the same."
        return Finding("control groups", "warning", detail, mend, needed=False)
    return Finding(
        "control groups", "ok", f"VMs get their own, for {', '.join(found.controllers)}", needed=False
    )


def _user_namespaces() -> Finding:
    """The sandbox needs them; a VM does not."""
    try:
        result = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "true"],
            capture_output=True, text=True, timeout=_TOOL_DEADLINE, check=False,
        )  # fmt: skip
        problem = result.stderr.strip() if result.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        mend = "sysctl kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), or run as root"
        return Finding("sandbox", "missing", problem, mend, needed=False)
    return Finding("sandbox", "ok", "user namespaces work", needed=False)
