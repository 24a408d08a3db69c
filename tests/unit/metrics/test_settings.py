from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloche.config import load_settings
from cloche.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:9464", "127.0.0.1", 9464), ("[::1]:0", "::1", 0), ("localhost:65535", "localhost", 65535)],
)
def test_an_address(tmp_path: Path, text: str, host: str, port: int) -> None:
    environ = {"HOME": str(tmp_path), "CLOCHE_METRICS_LISTEN": text}
    assert load_settings(environ).metrics.listen == (host, port)


def test_nobody_listens_unasked(tmp_path: Path) -> None:
    assert load_settings({"HOME": str(tmp_path)}).metrics.listen is None


@pytest.mark.parametrize(
    "text", ["9464", ":9464", "localhost", "localhost:", "localhost:65536", "localhost:http", "a:-1"]
)
def test_what_is_no_address(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="expected an address and a port"):
        load_settings({"HOME": str(tmp_path), "CLOCHE_METRICS_LISTEN": text})


def test_a_repository_cannot_ask_for_it(tmp_path: Path) -> None:
    (tmp_path / "cloche.toml").write_text('[metrics]\nlisten = "0.0.0.0:80"\n')
    with pytest.raises(UsageError, match="cannot be set by a repository"):
        load_settings({"HOME": str(tmp_path)}, repository=tmp_path)
