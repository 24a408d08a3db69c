"""``cloche image``: what people type and read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, BinaryIO

import pytest
from click.testing import CliRunner

from cloche.cli.image import image
from cloche.errors import ImageError
from cloche.image import build as building
from cloche.image import importing
from cloche.image.store import ImageStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from click.testing import Result

    from cloche.image.build import Progress
    from cloche.image.model import Image
    from cloche.image.recipe import Recipe


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Images are made of nothing here; the mirrors they would have come from."""
    used: list[str | None] = []

    def make(
        recipe: Recipe, work: Path, _log: BinaryIO, progress: Progress, mirror: str | None
    ) -> Mapping[str, object]:
        used.append(mirror)
        progress("pretending", 0.5)
        (work / "files" / f"{recipe.kind}.erofs").write_bytes(bytes(3 * 2**20))
        return {}

    monkeypatch.setattr(building, "make_image", make)
    monkeypatch.setattr(building, "check_space", lambda *_: None)
    return used


@pytest.fixture
def cloche(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("CLOCHE_IMAGE_HOST_CA", "CLOCHE_IMAGE_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments: CliRunner().invoke(image, list(arguments), catch_exceptions=False)


def test_build_makes_both_images_and_then_finds_them(
    cloche: Callable[..., Result], mirrors: list[str | None]
) -> None:
    first = cloche("build")
    assert [line.split(" in ")[0] for line in first.stdout.splitlines()] == ["system built", "default built"]
    assert "3 MiB" in first.stdout
    assert "system: pretending (50%)" in first.stderr
    again = cloche("build")
    assert [line.partition(":")[0] for line in again.stdout.splitlines()] == [
        "system is there already",
        "default is there already",
    ]
    assert len(mirrors) == 2


def test_build_takes_one_name_a_mirror_and_force(
    cloche: Callable[..., Result], mirrors: list[str | None]
) -> None:
    cloche("build", "default", "--mirror", "http://mirror.example/debian")
    forced = cloche("build", "default", "--force")
    assert "default built" in forced.stdout
    assert mirrors == ["http://mirror.example/debian", None]
    assert cloche("build", "nonsense").exit_code == 2


def test_the_environment_says_whether_to_trust_the_hosts_authorities(
    cloche: Callable[..., Result], mirrors: list[str | None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bundle").write_text("-----BEGIN CERTIFICATE-----\nMINE\n-----END CERTIFICATE-----\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "bundle"))
    monkeypatch.setenv("CLOCHE_IMAGE_HOST_CA", "true")
    cloche("build", "default")
    trusting = json.loads(cloche("show", "default").stdout)
    assert "MINE" in trusting["recipe"]["authorities"][0]
    cloche("build", "default", "--no-host-ca")
    assert json.loads(cloche("show", "default").stdout)["recipe"]["authorities"] == []


def test_list_shows_images_with_and_without_a_name(
    cloche: Callable[..., Result], mirrors: list[str | None]
) -> None:
    cloche("build", "default")
    cloche("build", "default", "--force")
    lines = [line.split() for line in cloche("list").stdout.splitlines()]
    assert lines[0] == ["NAME", "KIND", "DIGEST", "SIZE", "CREATED"]
    assert sorted(line[0] for line in lines[1:]) == ["-", "default"]


def test_show_takes_a_digest_too(cloche: Callable[..., Result], mirrors: list[str | None]) -> None:
    cloche("build", "system")
    facts = json.loads(cloche("show", "system").stdout)
    assert facts["names"] == ["system"]
    assert facts["kind"] == "system"
    assert json.loads(cloche("show", facts["digest"][:12]).stdout) == facts
    with pytest.raises(ImageError, match="no image named 'nothing'"):
        cloche("show", "nothing")


def test_rm_removes_names_and_files(
    cloche: Callable[..., Result], mirrors: list[str | None], tmp_path: Path
) -> None:
    cloche("build")
    assert cloche("rm", "default", "system").stdout == "removed default\nremoved system\n"
    assert ImageStore(tmp_path / "cloche").images() == []


def test_import_names_the_image_after_its_source(
    cloche: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, int]] = []

    def bring(store: ImageStore, source: Path, name: str, _progress: Progress, *, max_bytes: int) -> Image:
        seen.append((source.name, name, max_bytes))
        with store.workspace() as work:
            (work / "files").mkdir()
            manifest = {"kind": "job", "created": "now", "build_seconds": 1.5, "skipped": 2}
            return store.commit(work / "files", "a" * 64, manifest, name)

    monkeypatch.setattr(importing, "import_rootfs", bring)
    monkeypatch.setattr(importing, "import_oci", bring)
    (tmp_path / "alpine.tar.gz").write_bytes(b"")
    (tmp_path / "layout").mkdir()
    imported = cloche("import", str(tmp_path / "alpine.tar.gz"))
    assert imported.stdout.startswith("alpine imported in 1.5 s: aaaaaaaaaaaa")
    assert "2 devices, sockets or pipes were left out" in imported.stderr
    cloche("import", str(tmp_path / "layout"), "mine", "--max-size", "1GiB")
    assert seen == [("alpine.tar.gz", "alpine", 20 * 2**30), ("layout", "mine", 2**30)]


def test_import_refuses_what_is_no_size_and_no_file(cloche: Callable[..., Result], tmp_path: Path) -> None:
    bad = cloche("import", str(tmp_path), "--max-size", "much")
    assert bad.exit_code == 2
    assert "is not a size" in bad.stderr
    assert cloche("import", str(tmp_path / "absent")).exit_code == 2
