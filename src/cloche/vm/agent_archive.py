"""The guest agent as one file: its modules in a zip that Python runs (PEP 441), the same bytes every time."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

_SOURCE = Path(__file__).parent.parent / "guest"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def sources() -> list[tuple[str, bytes]]:
    """The archive's members: the agent's own package and nothing else of Cloche."""
    modules = [(f"cloche/guest/{path.name}", path.read_bytes()) for path in sorted(_SOURCE.glob("*.py"))]
    main = b"from cloche.guest.__main__ import main\n\nmain()\n"
    return [("__main__.py", main), ("cloche/__init__.py", b""), *modules]


def build() -> bytes:
    """The archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sources():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return buffer.getvalue()


def digest() -> str:
    """What identifies the agent's code: templates are remade when it changes."""
    return hashlib.sha256(build()).hexdigest()
