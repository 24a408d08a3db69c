"""The schemas of workflow files and ``action.yml`` as JSON Schema, for editors: generated from those that check.

An editor says less than ``cloche check`` does: a JSON schema knows nothing of expressions, ids and needs.
``python -m cloche.check.json_schema FOLDER`` writes them; a test keeps those in ``schemas`` current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloche.workflow.definitions import WORKFLOW_ROOT
from cloche.workflow.definitions_action import ACTION_ROOT
from cloche.workflow.schema import (
    Anything,
    BooleanValue,
    Definition,
    MappingValue,
    NullValue,
    NumberValue,
    OneOf,
    SequenceValue,
    StringValue,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloche.workflow.schema import Allowed

SCHEMAS = {"workflow.json": ("GitHub workflow", WORKFLOW_ROOT), "action.json": ("GitHub action", ACTION_ROOT)}
_DRAFT = "http://json-schema.org/draft-07/schema#"
_EXPRESSION = {"type": "string", "pattern": r"\$\{\{"}
_SCALAR = ["string", "number", "boolean"]


def schema_of(title: str, root: MappingValue) -> dict[str, Any]:
    """Return the JSON schema of files that ``root`` describes."""
    generator = _Generator()
    whole = generator.schema(root, root.allowed, "file")
    return {"$schema": _DRAFT, "title": title, "allOf": [whole], "definitions": generator.definitions}


def schema_text(name: str) -> str:
    """Return the text of a schema file by its name in SCHEMAS."""
    return json.dumps(schema_of(*SCHEMAS[name]), indent=1) + "\n"


class _Generator:
    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        self._names: dict[tuple[int, bool], str] = {}
        self._kept: list[Definition] = []  # an id() stays taken only as long as its object lives

    def schema(self, definition: Definition, allowed: Allowed, path: str) -> dict[str, Any]:
        """Return the schema of one value; ``path`` names what is defined once and referred to."""
        choices = list(self._choices(definition, allowed, path))
        if allowed:
            choices.append(_EXPRESSION)
        return choices[0] if len(choices) == 1 else {"anyOf": choices}

    def _choices(self, definition: Definition, allowed: Allowed, path: str) -> Iterator[dict[str, Any]]:
        match definition:
            case OneOf():
                for option in definition.options:
                    yield from self._choices(option, allowed | option.allowed, path)
            case MappingValue():
                yield {"$ref": f"#/definitions/{self._named(definition, allowed, path)}"}
            case SequenceValue():
                item = definition.item_definition()
                yield {"type": "array", "items": self.schema(item, allowed | item.allowed, f"{path}-item")}
            case Anything():
                yield {}
            case _:
                yield _scalar(definition)

    def _named(self, definition: MappingValue, allowed: Allowed, path: str) -> str:
        key = (id(definition), bool(allowed))
        if key not in self._names:
            name = path if path not in self._names.values() else f"{path}-{len(self._names)}"
            self._names[key] = name
            self._kept.append(definition)
            self.definitions[name] = self._mapping(definition, allowed, name)
        return self._names[key]

    def _mapping(self, definition: MappingValue, allowed: Allowed, path: str) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "object"}
        if definition.properties:
            schema["properties"] = {
                name: self.schema(value, allowed | value.allowed, name)
                for name, value in definition.properties.items()
            }
        if (
            definition.required and not allowed
        ):  # where keys may be expressions, one may stand for the required
            schema["required"] = list(definition.required)
        loose = definition.loose_value
        if loose is not None:
            schema["additionalProperties"] = self.schema(loose, allowed | loose.allowed, f"{path}-value")
        elif allowed:
            schema["patternProperties"] = {_EXPRESSION["pattern"]: {}}
            schema["additionalProperties"] = False
        else:
            schema["additionalProperties"] = False
        return schema


def _scalar(definition: Definition) -> dict[str, Any]:
    match definition:
        case NullValue():
            return {"type": "null"}
        case BooleanValue():
            return {"type": "boolean"}
        case NumberValue():
            return {"type": "number"}
        case StringValue() if definition.constants:
            return {"enum": list(definition.constants)}
        case StringValue() if definition.non_empty:
            return {"type": _SCALAR, "minLength": 1}
    return {"type": [*_SCALAR, "null"]}


if __name__ == "__main__":
    for file in SCHEMAS:
        Path(sys.argv[1], file).write_text(schema_text(file), encoding="utf-8")
