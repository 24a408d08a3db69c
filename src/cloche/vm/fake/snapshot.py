"""Snapshots of fake VMs: the files of open job roots, as JSON. What runs in them is not kept."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

from cloche.errors import GuestError, ProviderError
from cloche.vm.fake.files import Device, File, FileSystem, Folder, Link, Program
from cloche.vm.guest import JobRootSpec
from cloche.vm.snapshot import VmSnapshot, whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cloche.vm.fake.files import Node
    from cloche.vm.fake.provider import FakeGuest, FakeRoot, FakeVm

MADE_BY = "the fake"
NOTE = "a snapshot of a fake VM holds the files of its jobs, and no programs"
_FILE = "roots.json"


async def take(vm: FakeVm, folder: Path, number: int | None) -> VmSnapshot:
    """See SnapshotProvider.snapshot."""
    guest = vm.guest
    guest.check()
    if guest.under_way:
        raise GuestError("something is under way in the guest: it cannot be kept as it is")
    return await whole(folder, lambda: _take(vm, guest, folder, number))


async def _take(vm: FakeVm, guest: FakeGuest, folder: Path, number: int | None) -> VmSnapshot:
    roots = sorted(guest.roots, key=lambda root: root.name)
    descriptor = os.open(folder / _FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump([_told(root) for root in roots], file)
    snapshot = VmSnapshot(
        folder=folder,
        provider=vm.provider,
        vm_id=vm.id,
        spec=vm.spec,
        info=guest.info,
        machine_id="",
        number=number or 0,
        made_by=MADE_BY,
        size=(folder / _FILE).stat().st_size,
        paused=0.0,
        extra={},
        note=NOTE,
    )
    snapshot.write()
    return snapshot


def _told(root: FakeRoot) -> Mapping[str, Any]:
    return {
        "name": root.name,
        "hostname": root.hostname,
        "next_pid": root.next_pid,
        "oom_kills": root.oom_kills,
        "files": [[path, *_node(node)] for path, node in root.files.walk("/") if path],
    }


def _node(node: Node) -> tuple[str, int, str]:
    match node:
        case File(content=content, mode=mode):
            return "file", mode, base64.b64encode(content).decode("ascii")
        case Program(name=name, mode=mode):
            return "program", mode, name
        case Device(name=name, mode=mode):
            return "device", mode, name
        case Link(target=target, mode=mode):
            return "link", mode, target
        case Folder(mode=mode):
            return "folder", mode, ""


def _made(kind: str, mode: int, said: str) -> Node:
    match kind:
        case "file":
            return File(bytearray(base64.b64decode(said)), mode)
        case "program":
            return Program(said, mode)
        case "device":
            return Device(said, mode)
        case "link":
            return Link(said, mode)
        case "folder":
            return Folder(mode=mode)
        case _:
            raise ValueError(f"there is no {kind!r}")


def fill(guest: FakeGuest, snapshot: VmSnapshot) -> None:
    """Open the roots of a snapshot in a guest that never ran anything. ProviderError for half a snapshot."""
    if snapshot.made_by != MADE_BY:
        raise ProviderError(
            f"the snapshot was made by {snapshot.made_by}, this is {MADE_BY}", hint="run the workflow anew"
        )
    try:
        with (snapshot.folder / _FILE).open(encoding="utf-8") as file:
            told = json.load(file)
        for one in told:
            root = guest.open_root(JobRootSpec(one["name"], one["hostname"]))
            root.next_pid, root.oom_kills = one["next_pid"], one["oom_kills"]
            root.files = _files(one["files"], guest.disk)
    except (OSError, ValueError, KeyError, TypeError) as wrong:
        raise ProviderError(f"the snapshot in {snapshot.folder} is damaged: {wrong}") from wrong


def _files(told: list[tuple[str, str, int, str]], capacity: int) -> FileSystem:
    files = FileSystem(capacity)
    for path, kind, mode, said in told:
        files.add(f"/{path}", _made(kind, mode, said), follow=False)
    return files
