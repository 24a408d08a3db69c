"""The schema of ``on``.

Source: GitHub's published schema (``workflow-v1.0.json``, definition ``on-new``) and the documentation page
"Events that trigger workflows". As on GitHub's server any event may carry any of the filters; those that do
not apply to an event are without effect there.
"""

from __future__ import annotations

from cloche.workflow.schema import (
    Allowed,
    Anything,
    BooleanValue,
    MappingValue,
    NullValue,
    NumberValue,
    OneOf,
    SequenceValue,
    StringValue,
)

EVENTS = (
    "branch_protection_rule",
    "check_run",
    "check_suite",
    "create",
    "delete",
    "deployment",
    "deployment_status",
    "discussion",
    "discussion_comment",
    "dynamic",
    "fork",
    "gollum",
    "image_version",
    "interactive_component",
    "issue_comment",
    "issues",
    "label",
    "member",
    "merge_group",
    "milestone",
    "page_build",
    "project",
    "project_card",
    "project_column",
    "public",
    "pull_request",
    "pull_request_comment",
    "pull_request_review",
    "pull_request_review_comment",
    "pull_request_target",
    "push",
    "registry_package",
    "release",
    "repository_dispatch",
    "schedule",
    "status",
    "watch",
    "workflow_call",
    "workflow_dispatch",
    "workflow_run",
)
FILTERS = (
    "types",
    "branches",
    "branches-ignore",
    "tags",
    "tags-ignore",
    "paths",
    "paths-ignore",
    "workflows",
    "names",
    "versions",
)
INPUT_TYPES = ("string", "boolean", "number")
DISPATCH_INPUT_TYPES = (*INPUT_TYPES, "choice", "environment")

_NULL = NullValue()
_STRING = StringValue()
_NON_EMPTY_STRING = StringValue(non_empty=True)
_STRINGS = SequenceValue(item=_NON_EMPTY_STRING)
_SCALAR_OPTIONS = (_STRING, BooleanValue(), NumberValue())

_FILTER = OneOf(options=(_NULL, _NON_EMPTY_STRING, _STRINGS))
_EVENT = OneOf(
    options=(
        _NULL,
        MappingValue(
            properties={**dict.fromkeys(FILTERS, _FILTER), "reuse-previous-outcome": BooleanValue()}
        ),
    )
)
_SCHEDULE = SequenceValue(
    item=MappingValue(
        properties={"cron": _NON_EMPTY_STRING, "timezone": _NON_EMPTY_STRING}, required=("cron",)
    )
)

_CALL_INPUT = MappingValue(
    properties={
        "description": _STRING,
        "type": StringValue(constants=INPUT_TYPES),
        "required": BooleanValue(),
        "default": OneOf(
            options=_SCALAR_OPTIONS, allowed=Allowed(contexts=frozenset({"github", "inputs", "vars"}))
        ),
    },
    required=("type",),
)
_CALL_SECRET = OneOf(
    options=(_NULL, MappingValue(properties={"description": _STRING, "required": BooleanValue()}))
)
_CALL_OUTPUT = MappingValue(
    properties={
        "description": _STRING,
        "value": StringValue(allowed=Allowed(contexts=frozenset({"github", "inputs", "vars", "jobs"}))),
    },
    required=("value",),
)
WORKFLOW_CALL_PARTS = MappingValue(
    properties={
        "inputs": MappingValue(loose_key=_NON_EMPTY_STRING, loose_value=_CALL_INPUT),
        "secrets": MappingValue(loose_key=_NON_EMPTY_STRING, loose_value=_CALL_SECRET),
        "outputs": MappingValue(loose_key=_NON_EMPTY_STRING, loose_value=_CALL_OUTPUT),
    }
)
_WORKFLOW_CALL = OneOf(options=(_NULL, WORKFLOW_CALL_PARTS))

# GitHub's server takes unknown keys here and gives them no meaning.
_DISPATCH_INPUT = MappingValue(
    properties={
        "description": _STRING,
        "type": StringValue(constants=DISPATCH_INPUT_TYPES),
        "required": BooleanValue(),
        "default": OneOf(options=_SCALAR_OPTIONS),
        "options": SequenceValue(item=_STRING),
    },
    loose_key=_STRING,
    loose_value=Anything(),
)
_WORKFLOW_DISPATCH = OneOf(
    options=(
        _NULL,
        MappingValue(
            properties={
                "inputs": OneOf(
                    options=(
                        _NULL,
                        MappingValue(
                            loose_key=_NON_EMPTY_STRING,
                            loose_value=OneOf(options=(_NULL, _DISPATCH_INPUT)),
                        ),
                    )
                )
            },
            loose_key=_STRING,
            loose_value=Anything(),
        ),
    )
)

_SPECIAL = {"schedule": _SCHEDULE, "workflow_call": _WORKFLOW_CALL, "workflow_dispatch": _WORKFLOW_DISPATCH}
_EVENT_NAME = StringValue(constants=EVENTS)
ON = OneOf(
    options=(
        _EVENT_NAME,
        SequenceValue(item=_EVENT_NAME),
        MappingValue(properties={**dict.fromkeys(EVENTS, _EVENT), **_SPECIAL}),
    )
)
