from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloche.errors import ClocheError
from cloche.metrics import Metrics, write_metrics_file

if TYPE_CHECKING:
    from pathlib import Path


def test_the_file_is_replaced_whole_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "cloche.prom"
    path.write_text("old")
    with path.open() as old:
        write_metrics_file(Metrics(), path)
        assert old.read() == "old", "who reads it keeps what there was"
    families = {family.name for family in text_string_to_metric_families(path.read_text())}
    assert "vm_active_sessions" in families
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "cloche.prom"
    (folder / "something").mkdir(parents=True)
    with pytest.raises(ClocheError, match=r"cannot write the metrics to .*cloche\.prom: Is a directory"):
        write_metrics_file(Metrics(), folder)
    assert list(tmp_path.iterdir()) == [folder]
    with pytest.raises(ClocheError, match="No such file or directory"):
        write_metrics_file(Metrics(), tmp_path / "nowhere" / "cloche.prom")
