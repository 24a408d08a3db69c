"""Metrics as a file, for node_exporter's textfile collector.

https://github.com/prometheus/node_exporter#textfile-collector
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.errors import ClocheError

if TYPE_CHECKING:
    from cloche.metrics.metrics import Metrics

_READABLE = 0o644


def write_metrics_file(metrics: Metrics, path: Path) -> None:
    """Write all metrics to ``path``; a reader sees the old file or the whole new one. ClocheError if it cannot be."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(metrics.render())
            temporary.chmod(_READABLE)  # another user's collector reads it
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise ClocheError(
            f"cannot write the metrics to {path}: {error.strerror}",
            hint="--metrics-file names a file in a folder of yours",
        ) from None
