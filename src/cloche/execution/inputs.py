"""The inputs of ``workflow_dispatch``: as the user typed them, made what the workflow declares.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#onworkflow_dispatchinputs
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloche.errors import UsageError
from cloche.expressions import to_number, to_string
from cloche.workflow.templates import plain_value

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloche.expressions import Value
    from cloche.workflow.model import Workflow

EVENT = "workflow_dispatch"


def dispatch_inputs(workflow: Workflow, event: str, given: Mapping[str, str]) -> dict[str, Value]:
    """Return the ``inputs`` context: what was given, checked against its type, and defaults for the rest.

    Raises UsageError for inputs that the workflow does not declare, that are required and missing, or that are
    not of their type.
    """
    trigger = workflow.triggers.get(EVENT)
    if event != EVENT or trigger is None:
        if given:
            raise UsageError(
                f"inputs ({', '.join(given)}) belong to the event {EVENT}, not to {event}",
                hint=f"run with `-e {EVENT}`; the workflow must declare it under `on`",
            )
        return {}
    declared = plain_value(trigger.inputs) if trigger.inputs else {}
    declared = declared if isinstance(declared, dict) else {}
    if unknown := [name for name in given if name not in declared]:
        known = ", ".join(declared) or "none"
        raise UsageError(f"{workflow.path} declares no input {unknown[0]!r}", hint=f"its inputs: {known}")
    return {name: _value(name, definition, given.get(name)) for name, definition in declared.items()}


def _value(name: str, definition: Value, text: str | None) -> Value:
    definition = definition if isinstance(definition, dict) else {}
    kind = to_string(definition.get("type")) or "string"
    if text is None:
        if definition.get("required") is True and definition.get("default") is None:
            raise UsageError(f"the input {name!r} is required", hint=f"pass it with `--input {name}=VALUE`")
        text = to_string(definition.get("default"))
    match kind:
        case "boolean":
            return _boolean(name, text)
        case "number":
            return _number(name, text)
        case "choice":
            options = definition.get("options")
            return _choice(
                name, text, [to_string(option) for option in options] if isinstance(options, list) else []
            )
        case _:
            return text


def _boolean(name: str, text: str) -> bool:
    if text not in {"true", "false", ""}:
        raise UsageError(f"the input {name!r} is a boolean, not {text!r}", hint="write true or false")
    return text == "true"


def _number(name: str, text: str) -> Value:
    number = to_number(text)
    if number != number:  # noqa: PLR0124 - not a number is the one number that is not itself
        raise UsageError(f"the input {name!r} is a number, not {text!r}")
    return number if text else ""


def _choice(name: str, text: str, options: list[str]) -> str:
    if not text and options:
        return options[0]
    if text not in options:
        raise UsageError(
            f"the input {name!r} cannot be {text!r}", hint=f"choose one of: {', '.join(options)}"
        )
    return text
