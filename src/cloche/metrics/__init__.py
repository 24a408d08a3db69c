"""What Cloche does, as Prometheus metrics: docs/metrics.md names them all.

Heavy to import (prometheus-client): only who was asked for metrics does.
"""

from cloche.metrics.metrics import Metrics
from cloche.metrics.serving import serve
from cloche.metrics.sessions import MeasuredSessions
from cloche.metrics.textfile import write_metrics_file

__all__ = ["MeasuredSessions", "Metrics", "serve", "write_metrics_file"]
