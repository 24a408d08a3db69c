"""Job images made elsewhere: a root filesystem as a tar archive, or an OCI image layout directory.

Archives are untrusted; ``unpack.py`` bounds what they can do. What is not kept: devices, sockets and pipes,
extended attributes (file capabilities among them), and the times of directories.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.errors import ImageError
from cloche.image import unpack
from cloche.image.arch import host_architecture
from cloche.image.build import manifest_base, pack, quiet
from cloche.image.disk import check_space, explained
from cloche.image.oci import read_layout
from cloche.image.process import as_root, require, run
from cloche.image.recipe import FORMAT, digest_of
from cloche.image.store import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import BinaryIO

    from cloche.image.build import Progress
    from cloche.image.model import Image
    from cloche.image.store import ImageStore

MAX_BYTES = 20 * 1024**3
"""Bytes an image may have when unpacked, unless the caller says otherwise."""

_UNPACK_DEADLINE = 60 * 60.0
_PACKING_BEGINS = 0.8
_GROWTH = 3
"""How many times its archives' size an import is expected to need on disk: unpacked, and packed again."""


def import_rootfs(
    store: ImageStore, archive: Path, name: str, progress: Progress = quiet, *, max_bytes: int = MAX_BYTES
) -> Image:
    """Make a job image of a root filesystem in a tar archive: plain, or compressed by gzip, xz or zstd.

    Raises ImageError when the archive cannot be read, is damaged or hostile, or has more than ``max_bytes``.
    """
    check_name(name)
    try:
        with archive.open("rb") as file:
            source = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise ImageError(f"cannot read {archive}: {error.strerror}") from error
    return _import(
        store, [archive], name, progress, max_bytes=max_bytes, source={"type": "rootfs", "digest": source}
    )


def import_oci(
    store: ImageStore, directory: Path, name: str, progress: Progress = quiet, *, max_bytes: int = MAX_BYTES
) -> Image:
    """Make a job image of the image for this machine in an OCI image layout directory.

    Raises ImageError when the layout is not as the specification says, has no image for Linux on this
    architecture, or when a layer is damaged or hostile; ``max_bytes`` bounds all its layers together.
    """
    check_name(name)
    found = read_layout(directory, host_architecture())
    source = {"type": "oci", "digest": found.digest}
    return _import(
        store, found.layers, name, progress, max_bytes=max_bytes, source=source, config=found.config
    )


def _import(
    store: ImageStore,
    archives: Sequence[Path],
    name: str,
    progress: Progress,
    *,
    max_bytes: int,
    source: Mapping[str, object],
    config: Mapping[str, object] | None = None,
) -> Image:
    architecture = host_architecture().name
    digest = digest_of({"format": FORMAT, "kind": "job", "architecture": architecture, "source": source})
    needed = _GROWTH * sum(archive.stat().st_size for archive in archives)
    check_space(store.root, needed)
    with store.building(digest):
        if found := store.get(digest):
            store.tag(name, found)
            return found
        started = time.monotonic()
        with store.workspace() as work, explained(store, name, needed) as log:
            files = work / "files"
            tree = files / "tree"
            tree.mkdir(parents=True)
            skipped = _unpack_all(archives, tree, log, progress, max_bytes, layered=source["type"] == "oci")
            progress("packing", _PACKING_BEGINS)
            pack(tree, files / "job.erofs", log)
            progress("done", 1.0)
            manifest = {
                **manifest_base(files, "job", architecture),
                "source": source,
                "skipped": skipped,
                "config": config or {"env": {}, "user": "", "workdir": ""},
                "build_seconds": round(time.monotonic() - started, 1),
            }
            return store.commit(files, digest, manifest, name)


def _unpack_all(
    archives: Sequence[Path], tree: Path, log: BinaryIO, progress: Progress, max_bytes: int, *, layered: bool
) -> int:
    """Unpack the archives one over the other; return how many entries were left out."""
    entries = skipped = 0
    for number, archive in enumerate(archives):
        progress(f"unpacking {number + 1} of {len(archives)}", _PACKING_BEGINS * number / len(archives))
        result = _unpack(archive, tree, log, max_bytes, layered=layered)
        max_bytes -= result["bytes"]
        entries += result["entries"]
        skipped += result["skipped"]
    if entries == skipped:
        raise ImageError("there are no files in it")
    return skipped


def _unpack(archive: Path, tree: Path, log: BinaryIO, limit: int, *, layered: bool) -> dict[str, int]:
    with archive.open("rb") as file:
        if file.read(len(unpack.ZSTD)) == unpack.ZSTD:
            require("zstd")
    last = ""

    def remember(line: str) -> None:
        nonlocal last
        last = line

    program = [sys.executable, "-I", "-S", "-X", "utf8", str(Path(unpack.__file__))]
    options = [str(tree), str(limit), str(archive.absolute()), *(["--layer"] if layered else [])]
    run(
        as_root([*program, *options]),
        what=f"unpacking {archive.name}",
        log=log,
        deadline=_UNPACK_DEADLINE,
        on_line=remember,
    )
    result: dict[str, int] = json.loads(last)
    return result
