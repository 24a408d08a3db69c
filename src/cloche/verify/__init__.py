"""Evidence that one workflow gets one VM: scenarios on the real parts, what was seen, and what follows from it.

``verify`` runs the scenarios and returns a ``Report``; ``judge`` alone decides, and only from what was seen.
"""

from cloche.verify.judge import Check, judge
from cloche.verify.report import Report
from cloche.verify.scenarios import verify
from cloche.verify.stage import Plan, Progress

__all__ = ["Check", "Plan", "Progress", "Report", "judge", "verify"]
