"""Where images live: ``images/<digest>`` holds the files, ``refs/<name>`` says which digest a name means.

An image appears by one rename and never changes afterwards. What is being made lives in ``tmp/``, each
workspace locked by its maker for as long as the maker lives; workspaces without a lock are leftovers.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cloche.errors import ImageError
from cloche.image.model import KINDS, Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from cloche.image.model import Kind

BUILD_HINT = "cloche image build"
LOCK_DEADLINE = 45 * 60.0
"""Seconds to wait for another process that makes the same image."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHORT_DIGEST = re.compile(r"[0-9a-f]{12,64}")
_LOCK_POLL = 0.2
_STORE_DEADLINE = 600.0
_KEPT_LOGS = 20
_REMOVE_DEADLINE = 600.0
_MANIFEST = "manifest.json"


class ImageStore:
    """One user's images on this machine, below ``root``. Cheap to construct; safe for several processes at once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._images = root / "images"
        self._refs = root / "refs"
        self._tmp = root / "tmp"
        self._locks = root / "locks"
        self._logs = root / "logs"

    def resolve(self, name_or_digest: str, kind: Kind) -> Image:
        """Find an image by its name, its digest or the digest's first 12 or more digits.

        Raises ImageError when there is none, or when it is of another kind.
        """
        image = self.find(name_or_digest)
        if image.kind != kind:
            raise ImageError(f"{name_or_digest!r} is a {image.kind} image, and a {kind} image is needed here")
        return image

    def find(self, name_or_digest: str) -> Image:
        """Find an image of whatever kind. Raises ImageError when there is none."""
        image = self._find(name_or_digest)
        if image is None:
            raise ImageError(f"there is no image named {name_or_digest!r}", hint=BUILD_HINT)
        return image

    def get(self, digest: str) -> Image | None:
        """Find the image with exactly this digest."""
        return self._load(digest)

    def names(self) -> dict[str, str]:
        """Every name and the digest it means, sorted by name."""
        found = ((file.name, self._read_ref(file.name)) for file in _entries(self._refs))
        return {name: digest for name, digest in found if digest is not None}

    def images(self) -> Sequence[Image]:
        """Every whole image, oldest first, named or not."""
        loaded = [self._load(directory.name) for directory in _entries(self._images)]
        return sorted(
            (image for image in loaded if image), key=lambda image: str(image.manifest.get("created"))
        )

    def find_recipe(self, digest: str) -> Image | None:
        """Find the newest image that was built by the recipe with this digest."""
        matching = [image for image in self.images() if image.manifest.get("recipe_digest") == digest]
        return matching[-1] if matching else None

    def tag(self, name: str, image: Image) -> None:
        """Let ``name`` mean ``image``. Raises ImageError for a bad name, or one taken by another kind."""
        check_name(name)
        with self._exclusively():
            self._tag(name, image)

    def remove(self, name: str) -> None:
        """Forget a name, and remove the image's files if no other name means it.

        Raises ImageError when there is no such name, or when a running VM uses files that would go.
        """
        digest = self._read_ref(name)
        if digest is None:
            raise ImageError(f"there is no image named {name!r}", hint="cloche image list")
        with self._exclusively():
            image = self._load(digest)
            if image and list(self.names().values()).count(digest) == 1 and not self._delete(image):
                raise ImageError(f"image {name!r} is in use by a running VM", hint="end that run first")
            (self._refs / name).unlink(missing_ok=True)

    def gc(self) -> Sequence[Path]:
        """Remove what dead builders left, images that no name means and no VM uses, and old logs.

        Returns the paths that are gone.
        """
        if not self.root.is_dir():
            return []
        with self._exclusively():
            named = set(self.names().values())
            gone = [
                image.path for image in self.images() if image.digest not in named and self._delete(image)
            ]
            for leftover in filter(_is_unlocked, _entries(self._tmp)):
                remove_tree(leftover)
                gone.append(leftover)
            for log in sorted(_entries(self._logs), key=lambda log: log.stat().st_mtime)[:-_KEPT_LOGS]:
                log.unlink()
                gone.append(log)
        return gone

    @contextmanager
    def building(self, key: str) -> Iterator[None]:
        """Keep other processes from making the same thing meanwhile; wait for one that already does.

        Raises ImageError when it has not ended after LOCK_DEADLINE.
        """
        with self._lock(key, LOCK_DEADLINE, "another process is making the same image"):
            yield

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Make an empty directory on the store's file system, gone when the block ends however it ends."""
        with self._exclusively():
            directory = self._tmp / _unique()
            directory.mkdir()
            lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield directory
        finally:
            remove_tree(directory)
            os.close(lock)

    @contextmanager
    def log(self, topic: str) -> Iterator[tuple[Path, BinaryIO]]:
        """Open a new log file, named after its topic and the time."""
        self._make_directories()
        path = self._logs / f"{topic}-{time.strftime('%Y%m%d-%H%M%S')}-{_unique()[:4]}.log"
        # Unbuffered: closing it on a full disk must not hide what filled it.
        with path.open("wb", buffering=0) as file:
            yield path, file

    def commit(self, files: Path, digest: str, manifest: Mapping[str, object], name: str) -> Image:
        """Make a directory with an image's files into the image ``digest``, and let ``name`` mean it.

        The directory is moved away. If there already is such an image, that one stays.
        """
        check_name(name)
        content = json.dumps(manifest, indent=1, sort_keys=True).encode()
        (files / _MANIFEST).write_bytes(content)
        with self._exclusively():
            if self._load(digest) is None:
                remove_tree(self._images / digest)  # a damaged one
                files.rename(self._images / digest)
            image = self.find(digest)
            self._tag(name, image)
        return image

    def _find(self, name_or_digest: str) -> Image | None:
        digest = self._read_ref(name_or_digest)
        if digest is None and _SHORT_DIGEST.fullmatch(name_or_digest):
            matching = [
                entry.name for entry in _entries(self._images) if entry.name.startswith(name_or_digest)
            ]
            digest = matching[0] if len(matching) == 1 else None
        return self._load(digest) if digest else None

    def _read_ref(self, name: str) -> str | None:
        if not _NAME.fullmatch(name):
            return None
        with suppress(OSError, UnicodeDecodeError), (self._refs / name).open(encoding="ascii") as file:
            digest = file.read(64)
            return digest if _DIGEST.fullmatch(digest) else None
        return None

    def _load(self, digest: str) -> Image | None:
        path = self._images / digest
        with suppress(OSError, ValueError):
            manifest = json.loads((path / _MANIFEST).read_bytes())
            if manifest["kind"] in KINDS:
                return Image(manifest["kind"], digest, path, manifest)
        return None

    def _tag(self, name: str, image: Image) -> None:
        before = self._find(name)
        if before and before.kind != image.kind:
            raise ImageError(
                f"{name!r} is the name of a {before.kind} image, and this is a {image.kind} image",
                hint="choose another name",
            )
        new = self._tmp / f"ref-{_unique()}"
        new.write_text(image.digest, encoding="ascii")
        new.replace(self._refs / name)

    def _delete(self, image: Image) -> bool:
        """Remove an image's files unless somebody holds it; the caller has the store to itself."""
        with (image.path / _MANIFEST).open("rb") as manifest:
            try:
                fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            grave = self._tmp / _unique()
            image.path.rename(grave)
        remove_tree(grave)
        return True

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        """Have the store's names and directories to oneself for a moment."""
        with self._lock("store", _STORE_DEADLINE, "another process is changing the image store"):
            yield

    @contextmanager
    def _lock(self, key: str, deadline: float, reason: str) -> Iterator[None]:
        self._make_directories()
        until = time.monotonic() + deadline
        with (self._locks / f"{key}.lock").open("wb") as file:
            while not _try_lock(file.fileno()):
                if time.monotonic() >= until:
                    raise ImageError(
                        f"{reason}, for more than {deadline:.0f} s now",
                        hint="see whether it still makes progress",
                    )
                time.sleep(_LOCK_POLL)
            yield

    def _make_directories(self) -> None:
        try:
            # Nobody else on the machine needs to reach the setuid programs of an unpacked image.
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in (self._images, self._refs, self._tmp, self._locks, self._logs):
                directory.mkdir(exist_ok=True)
        except OSError as error:
            raise ImageError(
                f"cannot write the image store: {error}", hint="set XDG_DATA_HOME to a writable directory"
            ) from error


def check_name(name: str) -> None:
    """Raise ImageError unless ``name`` can name an image (and cannot be taken for a digest)."""
    if not _NAME.fullmatch(name) or _SHORT_DIGEST.fullmatch(name):
        raise ImageError(
            f"{name!r} cannot name an image",
            hint="use up to 64 letters, digits, dots, dashes and underscores; a letter or digit first",
        )


def remove_tree(path: Path) -> None:
    """Remove a directory of the store, whoever owns what is in it. What cannot go is left for ``gc``."""
    import shutil
    import subprocess

    from cloche.image.process import as_root

    if os.geteuid() != 0:
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
    # Built as root of a user namespace, files belong to ids that only such a root may remove.
    remove = ["rm", "-rf", "--one-file-system", "--", str(path)]
    with suppress(ImageError, subprocess.TimeoutExpired):
        argv = remove if os.geteuid() == 0 else as_root(remove)
        subprocess.run(argv, check=False, timeout=_REMOVE_DEADLINE, stdin=subprocess.DEVNULL)


def _unique() -> str:
    return os.urandom(8).hex()


def _entries(directory: Path) -> Sequence[Path]:
    try:
        return sorted(directory.iterdir())
    except FileNotFoundError:
        return []


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_unlocked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return _try_lock(descriptor)
    finally:
        os.close(descriptor)
