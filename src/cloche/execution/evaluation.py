"""Evaluating what a workflow wrote: status functions, and ``hashFiles``, which only a guest can answer.

https://docs.github.com/en/actions/reference/workflows-and-actions/expressions#status-check-functions
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from cloche.errors import GuestError, GuestLost, GuestTimeout
from cloche.expressions import EvaluationError, Pending, Scope, parse, parse_template, to_string, truthy
from cloche.workflow.nodes import Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloche.events import Conclusion
    from cloche.execution.contexts import NeedResult
    from cloche.expressions import Value
    from cloche.vm.guest import JobRoot
    from cloche.workflow.nodes import Node

    Function = Callable[[list[Value]], Value]

T = TypeVar("T")

HASH_FILES_DEADLINE = 120.0
"""Seconds for one ``hashFiles``, as in actions/runner."""


def job_functions(
    needs: Mapping[str, NeedResult], ancestors: Mapping[str, NeedResult], *, cancelled: bool
) -> dict[str, Function]:
    """Return the status functions of a job's ``if``.

    ``ancestors`` are all jobs that it needs, directly or through others; a failure or a skip anywhere up the
    chain counts. With arguments, ``success`` and ``failure`` look at the needs they name.
    """

    def chosen(names: list[Value]) -> list[Conclusion]:
        wanted = {to_string(name).lower() for name in names}
        if not wanted:
            return [ancestor.result for ancestor in ancestors.values()]
        return [need.result for name, need in needs.items() if name.lower() in wanted]

    return {
        "always": lambda _: True,
        "cancelled": lambda _: cancelled,
        "failure": lambda names: "failure" in chosen(names),
        "success": lambda names: not cancelled and all(result == "success" for result in chosen(names)),
    }


def step_functions(status: Conclusion) -> dict[str, Function]:
    """Return the status functions of a step's ``if``: they look at how the job stands."""
    return {
        "always": lambda _: True,
        "cancelled": lambda _: status == "cancelled",
        "failure": lambda _: status == "failure",
        "success": lambda _: status == "success",
    }


def holds(condition: str, scope: Scope) -> bool:
    """Return whether a condition, ``success()`` already implied in it, is true. EvaluationError."""
    return truthy(parse(condition).evaluate(scope))


class Evaluator:
    """Evaluates in one job; ``hashFiles`` is asked of the job's root, below ``folder``."""

    def __init__(self, root: JobRoot, folder: str) -> None:
        self._root = root
        self._folder = folder

    async def evaluate(
        self,
        work: Callable[[Scope], T],
        contexts: Mapping[str, Value],
        functions: Mapping[str, Function] | None = None,
    ) -> T:
        """Return what ``work`` makes of the scope; it is done again each time it needs files hashed.

        Raises EvaluationError, and GuestLost or GuestTimeout when the guest is gone.
        """
        hashes: dict[tuple[str, ...], str] = {}

        def hash_files(arguments: list[Value]) -> Value:
            patterns = tuple(map(to_string, arguments))
            if patterns not in hashes:
                raise Pending(patterns)
            return hashes[patterns]

        scope = Scope(contexts, {**(functions or {}), "hashFiles": hash_files})
        while True:
            try:
                return work(scope)
            except Pending as pending:
                patterns = pending.key
            if not isinstance(patterns, tuple):
                raise TypeError(patterns)
            hashes[patterns] = await self._hash_files(patterns)

    async def _hash_files(self, patterns: tuple[str, ...]) -> str:
        shown = f"hashFiles('{', '.join(patterns)}')"
        if patterns[0].startswith("--"):
            raise EvaluationError(f"{shown}: options are not carried out by Cloche yet")
        try:
            async with asyncio.timeout(HASH_FILES_DEADLINE):
                return await self._root.hash_files(self._folder, patterns)
        except TimeoutError:
            late = f"{shown} couldn't finish within {HASH_FILES_DEADLINE:g} seconds."
            raise EvaluationError(late) from None
        except (GuestLost, GuestTimeout):
            raise
        except GuestError as wrong:
            raise EvaluationError(f"{shown} failed: {wrong.message}") from wrong


def contexts_used(node: Node | None) -> frozenset[str]:
    """Return the contexts, in lower case, that the expressions in ``node`` refer to."""
    return frozenset(
        context
        for scalar in _scalars(node)
        if isinstance(scalar.value, str) and "${{" in scalar.value
        if (expression := parse_template(scalar.value).expression)
        for context, _ in expression.references()
    )


def _scalars(node: Node | None) -> Iterator[Scalar]:
    if isinstance(node, Scalar):
        yield node
    elif isinstance(node, Sequence):
        for item in node.items:
            yield from _scalars(item)
    elif node is not None:
        for key, value in node:
            yield key
            yield from _scalars(value)
