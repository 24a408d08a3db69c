"""Everything that shows a run: it subscribes to the event stream and knows nothing else."""

from cloche.report.factory import Reporter, make_reporter

__all__ = ["Reporter", "make_reporter"]
