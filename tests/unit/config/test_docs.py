from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from cloche.config import load_settings, variable
from cloche.config.settings import SECTIONS, kinds

DOCS = (Path(__file__).parents[3] / "docs/configuration.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("section", "key"), [(section, key) for section in SECTIONS for key in kinds(section)]
)
def test_every_setting_is_documented(section: str, key: str) -> None:
    assert f"| `[{section}] {key}` |" in DOCS
    assert f"`{variable(section, key)}`" in DOCS


def test_the_examples_are_accepted(tmp_path: Path) -> None:
    operator, repository = [block.partition("```")[0] for block in DOCS.split("```toml\n")[1:]]
    folder = tmp_path / ".config/cloche"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(operator, encoding="utf-8")
    (tmp_path / "cloche.toml").write_text(repository, encoding="utf-8")
    settings = load_settings({"HOME": str(tmp_path)}, repository=tmp_path)
    assert settings.vm.cpus == tomllib.loads(repository)["run"]["cpus"]
    assert settings.image_for(["debian-12"]) == "debian"
