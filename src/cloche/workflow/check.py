"""Checking a tree against a schema, finding what GitHub finds and wording it as GitHub does.

The rules, and which mistakes hide which, are those of actions/runner
(``WorkflowParser/ObjectTemplating/TemplateReader``).
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from cloche.expressions import ExpressionError
from cloche.expressions.values import fold
from cloche.workflow.nodes import Mapping, Scalar, Sequence
from cloche.workflow.schema import (
    Anything,
    BooleanValue,
    Definition,
    MappingValue,
    NullValue,
    NumberValue,
    SequenceValue,
    StringValue,
    options,
)
from cloche.workflow.templates import Insert, Templated, interpret, plain_text

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from cloche.workflow.findings import Findings
    from cloche.workflow.nodes import Node
    from cloche.workflow.schema import Allowed

_ANYTHING = Anything()
_NOT_ALLOWED = "A template expression is not allowed in this context"
_KINDS = {
    bool: BooleanValue,
    float: NumberValue,
    type(None): NullValue,
}


def check_tree(
    root: Node,
    definition: Definition,
    findings: Findings,
    *,
    refused: AbstractSet[str] = frozenset(),
) -> None:
    """Note everything in ``root`` that ``definition`` does not allow; ``refused`` are well-known keys to refuse."""
    _Checker(findings, refused).value(root, definition, definition.allowed)


class _Checker:
    def __init__(self, findings: Findings, refused: AbstractSet[str]) -> None:
        self._findings = findings
        self._refused = refused

    def value(self, node: Node, definition: Definition, allowed: Allowed) -> None:
        if isinstance(node, Scalar):
            self._scalar(self._interpret(node, allowed), node, definition, allowed)
        elif isinstance(node, Sequence):
            self._sequence(node, definition, allowed)
        else:
            self._mapping(node, definition, allowed)

    def _interpret(self, node: Scalar, allowed: Allowed) -> Scalar | Templated | Insert:
        """Return what the scalar says; a wrong expression is noted, and the scalar stays text."""
        seen = interpret(node, allowed)
        if isinstance(seen, ExpressionError):
            self._findings.add(seen.message, node.position, seen.hint)
            return node
        return seen

    def _scalar(
        self, seen: Scalar | Templated | Insert, node: Scalar, definition: Definition, allowed: Allowed
    ) -> None:
        if isinstance(seen, Insert):
            self._findings.add("Unexpected value '${{ insert }}'", node.position)
            return
        if isinstance(seen, Templated):
            if not allowed:
                self._findings.add(_NOT_ALLOWED, node.position)
            return
        text = plain_text(seen)
        kind = _KINDS.get(type(seen.value))
        known: list[str] = []
        for option in options(definition):
            if isinstance(option, StringValue):
                if option.accepts(text):
                    return
                known += option.constants
            elif kind and isinstance(option, kind):
                return
        self._findings.add_unknown(f"Unexpected value '{text}'", node.position, text, known)

    def _sequence(self, node: Sequence, definition: Definition, allowed: Allowed) -> None:
        option = next((one for one in options(definition) if isinstance(one, SequenceValue)), None)
        if option is None:
            self._findings.add("A sequence was not expected", node.position)
            return
        item_definition = option.item_definition()
        for item in node.items:
            self.value(item, item_definition, allowed | item_definition.allowed)

    def _mapping(self, node: Mapping, definition: Definition, allowed: Allowed) -> None:
        candidates = [one for one in options(definition) if isinstance(one, MappingValue)]
        if not candidates:
            self._findings.add("A mapping was not expected", node.position)
            return
        seen: set[str] = set()
        has_expression_key = False
        for key, value in node:
            name = self._interpret(key, allowed)
            if not isinstance(name, Scalar):
                has_expression_key = True
                self._expression_key(key, value, candidates, allowed)
                continue
            text = plain_text(name)
            if fold(text) in seen:
                self._findings.add(f"'{text}' is already defined", key.position)
                continue
            seen.add(fold(text))
            candidates = self._entry(name, value, candidates, allowed)
        self._check_complete(node, candidates, seen, has_expression_key=has_expression_key)

    def _expression_key(
        self, key: Scalar, value: Node, candidates: list[MappingValue], allowed: Allowed
    ) -> None:
        if not allowed:
            self._findings.add(_NOT_ALLOWED, key.position)
            return
        loose = candidates[0].loose_value
        definition = _ANYTHING if candidates[0].properties or loose is None else loose
        self.value(value, definition, allowed | definition.allowed)

    def _entry(
        self, key: Scalar, value: Node, candidates: list[MappingValue], allowed: Allowed
    ) -> list[MappingValue]:
        """Check one entry and return the candidates that know its key, or all if none does."""
        text = plain_text(key)
        knowing = [one for one in candidates if text in one.properties]
        first = candidates[0]
        if knowing and text in self._refused:  # it still tells which kind of mapping is meant
            self._findings.add(f"Unexpected value '{text}'", key.position)
            return knowing
        if knowing:
            definition = knowing[0].properties[text]
            self.value(value, definition, allowed | definition.allowed)
            return knowing
        if first.loose_key and first.loose_value:
            self._scalar(key, key, first.loose_key, first.loose_key.allowed)
            self.value(value, first.loose_value, allowed | first.loose_value.allowed)
        else:
            self._unknown_key(text, key, candidates)
        return candidates

    def _unknown_key(self, text: str, key: Scalar, candidates: list[MappingValue]) -> None:
        message = f"Unexpected value '{text}'"
        if text == "<<":
            hint = "merge keys are not part of GitHub's YAML; repeat the keys, or alias a whole value"
            self._findings.add(message, key.position, hint)
            return
        known = {name for one in candidates for name in one.properties} - self._refused
        self._findings.add_unknown(message, key.position, text, sorted(known))

    def _check_complete(
        self, node: Mapping, candidates: list[MappingValue], seen: set[str], *, has_expression_key: bool
    ) -> None:
        if len(candidates) > 1:
            counts = Counter(name for one in candidates for name in one.properties)
            telling = {name for name, count in counts.items() if count == 1} - self._refused
            self._findings.add(
                "There's not enough info to determine what you meant. "
                f"Add one of these properties: {', '.join(sorted(telling))}",
                node.position,
            )
        elif not has_expression_key:
            for name in candidates[0].required:
                if fold(name) not in seen:
                    self._findings.add(f"Required property is missing: {name}", node.position)
