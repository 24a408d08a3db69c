from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

from cloche.vm import agent_archive

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

# As the guest does it: nothing of the host's Cloche within reach.
IMPORT_ALL = """
import pkgutil, sys
sys.path.insert(0, sys.argv[1])
import cloche.guest
for module in pkgutil.iter_modules(cloche.guest.__path__, "cloche.guest."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
    print(module.name)
assert all(sys.argv[1] in (module.__file__ or "") for name, module in sys.modules.items() if name.startswith("cloche"))
"""


def test_the_archive_is_the_agent_and_nothing_else_of_cloche() -> None:
    with zipfile.ZipFile(io.BytesIO(agent_archive.build())) as archive:
        names = archive.namelist()
    assert names[:2] == ["__main__.py", "cloche/__init__.py"]
    assert all(name.startswith("cloche/guest/") for name in names[2:])
    assert "cloche/guest/agent.py" in names


def test_every_module_can_be_imported_from_the_archive_alone(tmp_path: Path) -> None:
    (tmp_path / "agent.pyz").write_bytes(agent_archive.build())
    command = [sys.executable, "-I", "-S", "-W", "error", "-c", IMPORT_ALL, str(tmp_path / "agent.pyz")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "cloche.guest.init" in ran.stdout.split()


def test_the_same_sources_are_the_same_bytes_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    first = agent_archive.digest()
    assert agent_archive.digest() == first
    sources = agent_archive.sources()
    monkeypatch.setattr(agent_archive, "sources", lambda: [*sources, ("cloche/guest/new.py", b"")])
    assert agent_archive.digest() != first
