"""Metrics of a run, for who asks for them: nobody else pays for the import."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cloche.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cloche.metrics import Metrics


@contextlib.contextmanager
def measured(path: Path | None) -> Iterator[Metrics | None]:
    """Give metrics that are written to ``path`` when the block ends, however it does; ``None`` without a path.

    UsageError before anything runs when the file cannot be where it should.
    """
    if path is None:
        yield None
        return
    if not path.absolute().parent.is_dir():
        raise UsageError(f"cannot write metrics to {path}: there is no such folder")
    from cloche.metrics import Metrics, write_metrics_file

    metrics = Metrics()
    try:
        yield metrics
    finally:
        write_metrics_file(metrics, path)
