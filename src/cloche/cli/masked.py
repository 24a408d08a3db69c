"""Errors that may quote what an expression came to."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cloche.errors import WorkflowError

if TYPE_CHECKING:
    from cloche.errors import ClocheError
    from cloche.execution.masking import Masker


def mask_error(error: ClocheError, masker: Masker) -> None:
    """Take secrets out of an error."""
    error.message = masker.mask(error.message)
    error.hint = error.hint and masker.mask(error.hint)
    if isinstance(error, WorkflowError):
        error.diagnostics = tuple(
            replace(found, message=masker.mask(found.message), hint=found.hint and masker.mask(found.hint))
            for found in error.diagnostics
        )
