"""docs/make_picture.py: the README's picture can be drawn again from its events."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

DOCS = Path(__file__).parents[3] / "docs"


def test_the_picture_is_drawn_from_the_example_events(tmp_path: Path) -> None:
    picture = tmp_path / "run.svg"
    command: list[str | Path] = [
        sys.executable,
        DOCS / "make_picture.py",
        DOCS / "example-events.jsonl",
        picture,
    ]
    subprocess.run(command, check=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=60)
    text = "".join(ET.parse(picture).getroot().itertext()).replace("\xa0", " ")  # noqa: S314 - drawn a moment ago
    assert "$ cloche run" in text
    assert "guest kernel" in text
    assert "https://" not in "".join(
        line for line in picture.read_text().splitlines() if "@font-face" in line
    )
