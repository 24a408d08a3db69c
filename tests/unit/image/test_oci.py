"""OCI layouts: the image for this machine is found, and nothing in them is believed unchecked."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.errors import ImageError
from cloche.image.arch import X86_64
from cloche.image.oci import MAX_DOCUMENT, read_layout

if TYPE_CHECKING:
    from pathlib import Path

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"


class Layout:
    """Writes an image layout, whole and right unless a test spoils it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, content: bytes | dict[str, Any], media_type: str = "", **more: object) -> dict[str, Any]:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        file = self.directory / "blobs" / "sha256" / digest
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    def image(self, *layers: bytes, architecture: str = "amd64", **config: object) -> dict[str, Any]:
        details = {"os": "linux", "architecture": architecture, "config": config}
        manifest = {
            "schemaVersion": 2,
            "config": self.blob(details, f"{OCI}.config.v1+json"),
            "layers": [self.blob(layer, f"{OCI}.layer.v1.tar+gzip") for layer in layers],
        }
        platform = {"os": "linux", "architecture": architecture}
        return self.blob(manifest, f"{OCI}.manifest.v1+json", platform=platform)

    def index(self, *entries: dict[str, Any]) -> dict[str, Any]:
        return self.blob({"schemaVersion": 2, "manifests": list(entries)}, f"{OCI}.index.v1+json")

    def top(self, *entries: dict[str, Any]) -> None:
        (self.directory / "index.json").write_text(
            json.dumps({"schemaVersion": 2, "manifests": list(entries)})
        )

    def file_of(self, descriptor: dict[str, Any]) -> Path:
        return self.directory / "blobs" / "sha256" / str(descriptor["digest"]).removeprefix("sha256:")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def read(layout: Layout) -> list[bytes]:
    return [layer.read_bytes() for layer in read_layout(layout.directory, X86_64).layers]


def test_layers_come_lowest_first_and_the_configuration_with_them(layout: Layout) -> None:
    descriptor = layout.image(
        b"lower", b"upper", Env=["A=b=c", "EMPTY="], User="1000:1000", WorkingDir="/app"
    )
    layout.top(descriptor)
    image = read_layout(layout.directory, X86_64)
    assert read(layout) == [b"lower", b"upper"]
    assert image.digest == descriptor["digest"]
    assert image.config == {"env": {"A": "b=c", "EMPTY": ""}, "user": "1000:1000", "workdir": "/app"}


def test_the_image_for_this_architecture_is_chosen_from_nested_indexes(layout: Layout) -> None:
    attestation = layout.image(b"sbom", architecture="unknown")
    attestation["platform"] = {"os": "unknown", "architecture": "unknown"}
    layout.top(layout.index(layout.image(b"arm", architecture="arm64"), layout.image(b"intel"), attestation))
    assert read(layout) == [b"intel"]


def test_docker_types_are_the_same_thing_under_another_name(layout: Layout) -> None:
    config = layout.blob({"os": "linux", "architecture": "amd64"}, f"{DOCKER}.container.image.v1+json")
    layer = layout.blob(b"layer", f"{DOCKER}.image.rootfs.diff.tar.gzip")
    manifest = {"schemaVersion": 2, "config": config, "layers": [layer]}
    layout.top(layout.blob(manifest, f"{DOCKER}.distribution.manifest.v2+json"))
    assert read(layout) == [b"layer"]


def test_one_image_under_two_tags_is_one_image(layout: Layout) -> None:
    descriptor = layout.image(b"layer")
    layout.top({**descriptor, "annotations": {"a": "1"}}, {**descriptor, "annotations": {"a": "2"}})
    assert read(layout) == [b"layer"]


def refused(layout: Layout, reason: str) -> None:
    with pytest.raises(ImageError, match=f"cannot be imported: .*{reason}") as caught:
        read_layout(layout.directory, X86_64)
    assert "skopeo copy" in str(caught.value.hint)


def test_several_images_are_too_many(layout: Layout) -> None:
    layout.top(layout.image(b"one"), layout.image(b"two"))
    refused(layout, "2 images for linux/amd64; keep one")


def test_no_image_for_this_machine_is_said(layout: Layout) -> None:
    layout.top(layout.image(b"arm", architecture="arm64"))
    refused(layout, "no image for linux/amd64")


def test_a_configuration_for_another_machine_is_noticed(layout: Layout) -> None:
    descriptor = layout.image(b"arm", architecture="arm64")
    del descriptor["platform"]
    layout.top(descriptor)
    refused(layout, "the image is for linux/arm64, not linux/amd64")


def test_a_changed_blob_is_noticed(layout: Layout) -> None:
    descriptor = layout.image(b"layer")
    layout.top(descriptor)
    file = layout.file_of(layout.blob(b"layer"))
    file.write_bytes(b"LAYER")
    refused(layout, "has another digest")
    file.write_bytes(b"layer and more")
    refused(layout, "has 14 bytes, not 5")


def test_a_missing_blob_is_noticed(layout: Layout) -> None:
    layout.top(layout.image(b"layer"))
    layout.file_of(layout.blob(b"layer")).unlink()
    refused(layout, "cannot be read: No such file")


@pytest.mark.parametrize(
    "digest", ["sha256:../../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "a" * 32, "", "x"]
)
def test_a_digest_is_never_a_path(layout: Layout, digest: str) -> None:
    layout.top({**layout.image(b"layer"), "digest": digest})
    refused(layout, "is not a digest")


def test_links_and_pipes_are_no_blobs(layout: Layout, tmp_path: Path) -> None:
    layout.top(layout.image(b"layer"))
    file = layout.file_of(layout.blob(b"layer"))
    (tmp_path / "elsewhere").write_bytes(b"layer")
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    refused(layout, "cannot be read")
    file.unlink()
    os.mkfifo(file)
    refused(layout, "is not a regular file")


def test_documents_are_bounded(layout: Layout) -> None:
    (layout.directory / "index.json").write_bytes(b" " * (MAX_DOCUMENT + 1))
    refused(layout, f"index.json is longer than {MAX_DOCUMENT} bytes")
    layout.top(layout.blob(b" " * (MAX_DOCUMENT + 1), f"{OCI}.manifest.v1+json"))
    refused(layout, "is a document of")


def test_indexes_are_not_followed_for_ever(layout: Layout) -> None:
    entry = layout.image(b"layer")
    for _ in range(6):
        entry = layout.index(entry)
    layout.top(entry)
    refused(layout, "nested too deeply")


def test_layers_that_are_no_archives_are_refused(layout: Layout) -> None:
    layer = layout.blob(b"x", "application/vnd.example.encrypted")
    layout.top(layout.blob({"config": layout.blob({}, "c"), "layers": [layer]}, f"{OCI}.manifest.v1+json"))
    refused(layout, "layers of type 'application/vnd.example.encrypted' are not supported")


def test_other_versions_are_refused(layout: Layout) -> None:
    layout.top(layout.image(b"layer"))
    (layout.directory / "oci-layout").write_text('{"imageLayoutVersion": "2.0"}')
    refused(layout, "version is '2.0', not 1.x")


def test_a_directory_that_is_no_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="oci-layout cannot be read"):
        read_layout(tmp_path, X86_64)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["manifests", "mediaType", "digest", "size", "platform", "config", "layers"])


@given(
    index=st.dictionaries(KEYS, JSON), manifest=st.dictionaries(KEYS, JSON), entry=st.dictionaries(KEYS, JSON)
)
def test_whatever_the_documents_hold_it_is_an_image_or_an_image_error(
    index: dict[str, Any],
    manifest: dict[str, Any],
    entry: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    layout = Layout(tmp_path_factory.getbasetemp() / "random")
    descriptor = layout.blob(manifest, f"{OCI}.manifest.v1+json")
    for content in (index, {"manifests": [entry]}, {"manifests": [descriptor]}):
        (layout.directory / "index.json").write_text(json.dumps(content))
        with pytest.raises(ImageError, match="cannot be imported"):
            read_layout(layout.directory, X86_64)
