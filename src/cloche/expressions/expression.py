"""An expression, parsed once and evaluated as often as wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.expressions.budget import MAX_MEMORY, MAX_WORK, OutOfMemory
from cloche.expressions.errors import EvaluationError, Source
from cloche.expressions.evaluator import Evaluator
from cloche.expressions.names import Names
from cloche.expressions.parser import parse_tree
from cloche.expressions.syntax import Call, Context, Index, Literal, walk
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cloche.expressions.evaluator import Scope
    from cloche.expressions.syntax import Node
    from cloche.expressions.values import Value


_MIB = 1024 * 1024
_LIMITS = (
    f"an expression may hold {MAX_MEMORY // _MIB} MiB at a time, two bytes a character, "
    f"and handle {MAX_WORK // _MIB} MiB in all"
)


@record
class Expression:
    """An expression: its text without ``${{ }}``, its tree (``None`` if it is empty), where it starts."""

    text: str
    root: Node | None
    start: int = 0

    def evaluate(self, scope: Scope) -> Value:
        """Return the value in ``scope``; an empty expression is null, so is a context that is missing.

        Raises EvaluationError, and Pending (or anything else) when a function of the scope raises it.
        """
        if self.root is None:
            return None
        try:
            return Evaluator(scope).evaluate(self.root)
        except OutOfMemory:
            problem = "The maximum allowed memory size was exceeded while evaluating the following expression"
            raise EvaluationError(f"{problem}: {self.text}", offset=self.start, hint=_LIMITS) from None

    def references(self) -> frozenset[tuple[str, str | None]]:
        """Return the contexts used, in lower case, each with the property first taken from it, as typed.

        The property is ``None`` where it is computed, is ``*``, or where the context is used as a whole.
        """
        found: set[tuple[str, str | None]] = set()
        taken: set[int] = set()
        for node in walk(self.root):
            match node:
                case Index(target=Context() as context, key=Literal(value=str(key))):
                    found.add((context.name.lower(), key))
                    taken.add(id(context))
                case Context() if id(node) not in taken:
                    found.add((node.name.lower(), None))
        return frozenset(found)

    def functions_called(self) -> frozenset[str]:
        """Return the names of the functions called anywhere in it, in lower case."""
        return frozenset(node.name.lower() for node in walk(self.root) if isinstance(node, Call))


def parse(
    text: str, *, contexts: Iterable[str] | None = None, functions: Iterable[str] | None = None
) -> Expression:
    """Parse an expression, written without ``${{ }}``.

    ``contexts`` and ``functions`` are the names allowed here, all of GitHub's by default; built-in functions
    are always allowed. A function may be narrowed as GitHub's schema writes it: ``success(0,0)``.

    Raises LexingError or ParsingError, worded as GitHub words them.
    """
    return parse_source(Source(text, 0, len(text)), Names(contexts, functions))


def parse_source(source: Source, names: Names) -> Expression:
    """Parse an expression that is part of a longer text; errors and nodes have their place in that text."""
    return Expression(source.text, parse_tree(source, names), source.start)
