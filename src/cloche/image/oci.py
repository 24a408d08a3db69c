"""Reading an OCI image layout directory: the layers of the image for this machine, and what it says of itself.

Source: the OCI image specification (image-layout.md, image-index.md, manifest.md, config.md). Everything in the
directory is untrusted: every blob is checked against its digest, documents are bounded in size and depth.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
from typing import TYPE_CHECKING, Any

from cloche.errors import ImageError
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from io import BufferedReader
    from pathlib import Path

    from cloche.image.arch import Architecture

MAX_DOCUMENT = 4 * 1024 * 1024
MAX_LAYERS = 512
_MAX_INDEX_DEPTH = 4
_CHUNK = 1024 * 1024
_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar(\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.diff\.tar(\.gzip|\.zstd)?)"
)


@record
class OciImage:
    """One image of a layout: its manifest's digest, its layers' files, lowest first, and its configuration.

    ``config`` has ``env`` (names to values), ``user`` and ``workdir``, as a job image's manifest keeps them.
    """

    digest: str
    layers: Sequence[Path]
    config: Mapping[str, object]


def read_layout(directory: Path, architecture: Architecture) -> OciImage:
    """Find the layout's image for Linux on this architecture, and check each of its blobs.

    Raises ImageError when there is none, or more than one, or when anything is not as the specification says.
    """
    layout = _Layout(directory)
    layout.check_version()
    descriptor = layout.choose(layout.document("index.json"), architecture)
    manifest = layout.blob_document(descriptor)
    layers = _list(manifest, "layers")
    if len(layers) > MAX_LAYERS:
        raise layout.broken(f"it has {len(layers)} layers, more than {MAX_LAYERS}")
    config = layout.blob_document(_dict(manifest, "config"))
    if "architecture" in config and not _matches(config, architecture):
        raise layout.broken(f"the image is for {_platform_text(config)}, not linux/{architecture.debian}")
    return OciImage(
        digest=str(descriptor["digest"]),
        layers=[layout.layer(layer) for layer in layers],
        config=_process_config(_dict(config, "config")),
    )


class _Layout:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def broken(self, reason: str) -> ImageError:
        return ImageError(
            f"{self._directory} cannot be imported: {reason}",
            hint="export it again, for example with: skopeo copy docker://IMAGE oci:DIRECTORY",
        )

    def check_version(self) -> None:
        version = self.document("oci-layout").get("imageLayoutVersion")
        if not str(version).startswith("1."):
            raise self.broken(f"its layout version is {version!r}, not 1.x")

    def document(self, name: str) -> dict[str, Any]:
        with self._open(name) as file:
            return self._parse(name, file.read(MAX_DOCUMENT + 1))

    def choose(self, index: dict[str, Any], architecture: Architecture, depth: int = 0) -> dict[str, Any]:
        """Descend to the one manifest for the architecture; indexes may hold indexes."""
        if depth > _MAX_INDEX_DEPTH:
            raise self.broken("its indexes are nested too deeply")
        entries = _list(index, "manifests")
        fitting = list(
            {str(entry.get("digest")): entry for entry in entries if _fits(entry, architecture)}.values()
        )
        if not fitting:
            raise self.broken(f"it has no image for linux/{architecture.debian}")
        if len(fitting) > 1:
            raise self.broken(f"it has {len(fitting)} images for linux/{architecture.debian}; keep one")
        if fitting[0].get("mediaType") in _INDEXES:
            return self.choose(self.blob_document(fitting[0]), architecture, depth + 1)
        chosen: dict[str, Any] = fitting[0]
        return chosen

    def blob_document(self, descriptor: Mapping[str, Any]) -> dict[str, Any]:
        """Read a document that a descriptor names. Its size was checked by then, so it may be read at once."""
        return self.document(self._verified(descriptor, MAX_DOCUMENT))

    def layer(self, descriptor: Mapping[str, Any]) -> Path:
        media_type = str(descriptor.get("mediaType"))
        if not _LAYER.fullmatch(media_type):
            raise self.broken(f"layers of type {media_type!r} are not supported")
        return self._directory / self._verified(descriptor)

    def _verified(self, descriptor: Mapping[str, Any], largest: float = math.inf) -> str:
        """Return a blob's path in the layout after checking its size and digest."""
        digest = str(descriptor.get("digest"))
        found = _DIGEST.fullmatch(digest)
        if found is None:
            raise self.broken(f"{digest[:80]!r} is not a digest this version knows")
        algorithm, expected = digest.split(":")
        name = f"blobs/{algorithm}/{expected}"
        with self._open(name) as file:
            size = os.fstat(file.fileno()).st_size
            if size != descriptor.get("size"):
                raise self.broken(f"{digest} has {size} bytes, not {descriptor.get('size')}")
            if size > largest:
                raise self.broken(f"{digest} is a document of {size} bytes, more than {largest}")
            actual = hashlib.file_digest(file, algorithm).hexdigest()
        if actual != expected:
            raise self.broken(f"the content of {digest} has another digest: it was damaged or changed")
        return name

    def _open(self, name: str) -> BufferedReader:
        """Open a regular file of the layout; a pipe or device in its place must not stop us."""
        path = self._directory / name
        try:
            file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")  # noqa: PTH123, SIM115 - a descriptor, handed to the caller
        except OSError as error:
            raise self.broken(f"{name} cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise self.broken(f"{name} is not a regular file")
        return file

    def _parse(self, name: str, content: bytes) -> dict[str, Any]:
        if len(content) > MAX_DOCUMENT:
            raise self.broken(f"{name} is longer than {MAX_DOCUMENT} bytes")
        try:
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self.broken(f"{name} is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise self.broken(f"{name} is not a JSON object")
        return data


def _fits(entry: Mapping[str, Any], architecture: Architecture) -> bool:
    known = entry.get("mediaType") in (*_INDEXES, *_MANIFESTS)
    platform = _dict(entry, "platform")
    return known and (not platform or _matches(platform, architecture))


def _matches(platform: Mapping[str, Any], architecture: Architecture) -> bool:
    return platform.get("os", "linux") == "linux" and platform.get("architecture") == architecture.debian


def _platform_text(platform: Mapping[str, Any]) -> str:
    return f"{platform.get('os')}/{platform.get('architecture')}"


def _process_config(config: Mapping[str, Any]) -> dict[str, object]:
    pairs = (str(pair).partition("=") for pair in _list(config, "Env", str))
    return {
        "env": {name: value for name, _, value in pairs if name},
        "user": str(config.get("User") or ""),
        "workdir": str(config.get("WorkingDir") or ""),
    }


def _dict(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def _list(data: Mapping[str, Any], key: str, kind: type = dict) -> list[Any]:
    value = data.get(key)
    return [entry for entry in value if isinstance(entry, kind)] if isinstance(value, list) else []
