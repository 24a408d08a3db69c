"""Recipes as data: what their digest depends on, and which of the host's authorities they take."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cloche.errors import ImageError
from cloche.image import recipe as module
from cloche.image.arch import X86_64
from cloche.image.recipe import (
    Wheel,
    certificates,
    default_job_recipe,
    digest_of,
    host_authorities,
    system_recipe,
)

if TYPE_CHECKING:
    from pathlib import Path


def pem(body: str) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"


def test_equal_recipes_have_equal_digests() -> None:
    assert system_recipe(X86_64).digest == system_recipe(X86_64).digest
    assert len(system_recipe(X86_64).digest) == 64


def test_every_ingredient_changes_the_digest() -> None:
    recipe = default_job_recipe(architecture=X86_64)
    changed = [
        replace(recipe, packages=(*recipe.packages, "cowsay")),
        replace(recipe, hooks=(*recipe.hooks, "true")),
        replace(recipe, suite="trixie"),
        replace(recipe, wheels=(Wheel("x==1", "0" * 64, "x"),)),
        replace(recipe, authorities=(pem("A"),)),
        replace(recipe, environment=(("A", "b"),)),
        replace(recipe, architecture="aarch64"),
        replace(recipe, kind="system"),
    ]
    assert len({recipe.digest, *(other.digest for other in changed)}) == len(changed) + 1


def test_name_and_space_do_not_change_the_digest() -> None:
    recipe = system_recipe(X86_64)
    assert replace(recipe, name="other", space=1).digest == recipe.digest


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})


def test_node_comes_pinned_by_version_and_hash() -> None:
    wheels = default_job_recipe(architecture=X86_64).wheels
    assert [wheel.directory for wheel in wheels] == ["node20", "node24"]
    for wheel in wheels:
        assert re.fullmatch(r"[a-z-]+==\d+\.\d+\.\d+", wheel.requirement)
        assert re.fullmatch(r"[0-9a-f]{64}", wheel.sha256)


@pytest.fixture
def trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host whose distribution ships A and B, and whose bundle is for the test to write."""
    shipped = tmp_path / "share" / "mozilla"
    shipped.mkdir(parents=True)
    (shipped / "a.crt").write_text(pem("A"))
    (shipped / "b.crt").write_text(pem("B").replace("\n", "\r\n"))
    monkeypatch.setattr(module, "_DISTRIBUTION", tmp_path / "share")
    bundle = tmp_path / "bundle.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    return bundle


def test_the_hosts_extra_authorities_are_those_its_distribution_does_not_ship(trust: Path) -> None:
    trust.write_text(pem("A") + "comment\n" + pem("MINE") + pem("B") + pem("ALSO"))
    assert host_authorities() == (pem("ALSO"), pem("MINE"))


def test_the_hosts_authorities_are_part_of_the_recipe_only_when_asked(trust: Path) -> None:
    trust.write_text(pem("A") + pem("MINE"))
    plain, trusting = (
        default_job_recipe(architecture=X86_64),
        default_job_recipe(host_ca=True, architecture=X86_64),
    )
    assert plain.authorities == ()
    assert trusting.authorities == (pem("MINE"),)
    assert plain.digest != trusting.digest
    assert dict(trusting.environment)["NODE_EXTRA_CA_CERTS"] == "/etc/ssl/certs/ca-certificates.crt"


def test_an_unreadable_bundle_is_an_error_that_says_what_to_set(trust: Path) -> None:
    with pytest.raises(ImageError, match="cannot read the host's certificate authorities") as caught:
        host_authorities()
    assert "SSL_CERT_FILE" in str(caught.value.hint)


def test_a_text_without_certificates_has_none() -> None:
    assert certificates("-----BEGIN CERTIFICATE-----\nnever ended") == set()
