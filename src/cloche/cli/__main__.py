"""``python -m cloche.cli``: the same as the ``cloche`` command."""

from __future__ import annotations

from cloche.cli import main

main()
