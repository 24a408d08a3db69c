"""``cloche image``: build, import, list, show and remove images."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cloche.image.model import Image
    from cloche.image.recipe import Recipe
    from cloche.image.store import ImageStore

_SHOWN_DIGITS = 12
_BUILDABLE = ("system", "default")


@click.group()
def image() -> None:
    """Build, import and look at images.

    The system image is what a VM itself runs; a job image is the machine that jobs see.
    """


@image.command("build")
@click.argument("name", required=False, type=click.Choice(_BUILDABLE))
@click.option(
    "--host-ca/--no-host-ca", default=None, help="Trust the certificate authorities this host added."
)
@click.option("--force", is_flag=True, help="Build anew, with the packages of today.")
@click.option("--mirror", metavar="URL", help="Fetch Debian packages from this mirror.")
def build(name: str | None, host_ca: bool | None, force: bool, mirror: str | None) -> None:
    """Build the images that are not there yet: NAME, or all of them.

    Takes minutes and a network the first time, nothing afterwards.
    """
    from cloche.config import load_settings

    settings = load_settings(flags={"image.host_ca": host_ca, "image.mirror": mirror}).image
    for recipe in _recipes(name, host_ca=settings.host_ca):
        _build_one(recipe, settings.mirror, force=force)


@image.command("import")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("name", required=False)
@click.option(
    "--max-size", metavar="SIZE", default="20GiB", show_default=True, help="Refuse what unpacks to more."
)
def import_(source: Path, name: str | None, max_size: str) -> None:
    """Import a job image from SOURCE: an archive of a root filesystem, or an OCI image layout directory.

    An archive is a tar file, plain or compressed by gzip, xz or zstd. Without NAME the image is called after
    SOURCE.
    """
    from cloche.image.importing import import_oci, import_rootfs
    from cloche.units import parse_size

    try:
        limit = parse_size(max_size)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--max-size") from error
    name = name or source.resolve().name.partition(".")[0]
    bring = import_oci if source.is_dir() else import_rootfs
    with _progress(name) as progress:
        made = bring(_store(), source, name, progress, max_bytes=limit)
    _tell(name, made, "imported")
    if skipped := made.manifest.get("skipped"):
        click.echo(f"{name}: {skipped} devices, sockets or pipes were left out", err=True)


@image.command("list")
def list_() -> None:
    """List all images; those without a name go with the next `cloche gc`."""
    from cloche.units import format_size

    store = _store()
    rows = [("NAME", "KIND", "DIGEST", "SIZE", "CREATED")]
    for found in store.images():
        created = str(found.manifest.get("created"))[: len("2026-01-01T00:00:00")]
        row = (found.kind, found.digest[:_SHOWN_DIGITS], format_size(_size(found)), created)
        rows += [(name, *row) for name in _names(store, found) or ["-"]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for line in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@image.command("show")
@click.argument("name")
def show(name: str) -> None:
    """Show all about an image, as JSON. NAME may be a digest."""
    store = _store()
    found = store.find(name)
    facts = {"names": _names(store, found), "digest": found.digest, "path": str(found.path), **found.manifest}
    click.echo(json.dumps(facts, indent=2))


@image.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def rm(names: Sequence[str]) -> None:
    """Remove images by name; the files go with the last name."""
    store = _store()
    for name in names:
        store.remove(name)
        click.echo(f"removed {name}")


def _store() -> ImageStore:
    from cloche.config import data_dir
    from cloche.image.store import ImageStore

    return ImageStore(data_dir())


def _recipes(name: str | None, *, host_ca: bool) -> Iterator[Recipe]:
    from cloche.image.recipe import default_job_recipe, system_recipe

    if name in (None, "system"):
        yield system_recipe()
    if name in (None, "default"):
        yield default_job_recipe(host_ca=host_ca)


def _build_one(recipe: Recipe, mirror: str | None, *, force: bool) -> None:
    from cloche.image.build import build, ensure

    store = _store()
    before = store.find_recipe(recipe.digest)
    with _progress(recipe.name) as progress:
        if force:
            made = build(store, recipe, progress, mirror=mirror, force=True)
        else:
            made = ensure(store, recipe, progress, mirror=mirror)
    _tell(recipe.name, made, "is there already" if before and made.digest == before.digest else "built")


def _tell(name: str, made: Image, what: str) -> None:
    from cloche.units import format_duration, format_size

    took = (
        f" in {format_duration(float(str(made.manifest['build_seconds'])))}"
        if what != "is there already"
        else ""
    )
    click.echo(f"{name} {what}{took}: {made.digest[:_SHOWN_DIGITS]}, {format_size(_size(made))}")


def _size(found: Image) -> int:
    sizes = found.manifest.get("sizes")
    return sum(sizes.values()) if isinstance(sizes, dict) else 0


def _names(store: ImageStore, found: Image) -> list[str]:
    return [name for name, digest in store.names().items() if digest == found.digest]


@contextmanager
def _progress(name: str) -> Iterator[Callable[[str, float], None]]:
    """Show progress on standard error: a bar on a terminal, a line for each phase elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.fields[name]}"),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0, name=name, visible=False)
        yield lambda phase, fraction: bar.update(task, description=phase, completed=fraction, visible=True)


class _Lines:
    """Progress for logs."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._phase = ""

    def __call__(self, phase: str, fraction: float) -> None:
        if phase != self._phase:
            self._phase = phase
            click.echo(f"{self._name}: {phase} ({fraction:.0%})", err=True)
