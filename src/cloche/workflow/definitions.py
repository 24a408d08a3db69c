"""The schema of a workflow file below ``jobs``, and its root. ``on`` is in ``definitions_on``.

Source: GitHub's published schema (``workflow-v1.0.json`` in actions/runner and actions/languageservices),
whose names the constants keep, and the "context availability" table of GitHub's documentation.
"""

from __future__ import annotations

from cloche.workflow.definitions_on import ON
from cloche.workflow.schema import (
    Allowed,
    Anything,
    BooleanValue,
    Definition,
    MappingValue,
    NullValue,
    NumberValue,
    OneOf,
    SequenceValue,
    StringValue,
    with_allowed,
)


def _allow(contexts: str, functions: str = "") -> Allowed:
    return Allowed(frozenset(contexts.split()), frozenset(functions.split()))


_JOB_STATUS = "always(0,0) cancelled(0,0) failure(0,MAX) success(0,MAX)"
_STEP_STATUS = "always(0,0) cancelled(0,0) failure(0,0) success(0,0)"
_HASH_FILES = "hashFiles(1,255)"
_WORKFLOW = _allow("github inputs vars")
_WORKFLOW_ENV = _allow("github inputs vars secrets")
_NEEDS = _allow("github inputs vars needs")
_STRATEGY = _allow("github inputs vars needs strategy matrix")
_JOB_ENV = _allow("github inputs vars needs strategy matrix secrets")
_JOB_DEFAULTS = _allow("github inputs vars needs strategy matrix env")
_RUNNER = _allow("github inputs vars needs strategy matrix secrets steps job runner env")
_RUNNER_NO_SECRETS = _allow("github inputs vars needs strategy matrix steps job runner env")
_CREDENTIALS = _allow("github inputs vars secrets env")
_STEP = _allow("github inputs vars needs strategy matrix secrets steps job runner env", _HASH_FILES)
JOB_CONDITION = _allow("github inputs vars needs", _JOB_STATUS)
STEP_CONDITION = _allow(
    "github inputs vars needs strategy matrix steps job runner env", f"{_STEP_STATUS} {_HASH_FILES}"
)

STEP_CONTEXTS = _STEP
"""What the `env` of a step may use, and most else in it."""

STRING = StringValue()
NON_EMPTY_STRING = StringValue(non_empty=True)
BOOLEAN = BooleanValue()
NUMBER = NumberValue()
SEQUENCE_OF_NON_EMPTY_STRING = SequenceValue(item=NON_EMPTY_STRING)
STRING_OR_LIST = OneOf(options=(NON_EMPTY_STRING, SEQUENCE_OF_NON_EMPTY_STRING))
SCALAR = OneOf(options=(STRING, BOOLEAN, NUMBER))


def _dictionary(value: Definition, allowed: Allowed | None = None) -> MappingValue:
    """Return a mapping of any non-empty keys to ``value``."""
    mapping = MappingValue(loose_key=NON_EMPTY_STRING, loose_value=value)
    return with_allowed(mapping, allowed) if allowed else mapping


# --- what stands at several places ---

_LEVEL = StringValue(constants=("read", "write", "none"))
_NO_WRITE = StringValue(constants=("read", "none"))
_NO_READ = StringValue(constants=("write", "none"))
_PERMISSIONS = {
    "actions": _LEVEL,
    "artifact-metadata": _LEVEL,
    "attestations": _LEVEL,
    "checks": _LEVEL,
    "code-quality": _LEVEL,
    "contents": _LEVEL,
    "copilot-requests": _NO_READ,
    "deployments": _LEVEL,
    "discussions": _LEVEL,
    "drives": _LEVEL,
    "id-token": _NO_READ,
    "issues": _LEVEL,
    "models": _NO_WRITE,
    "packages": _LEVEL,
    "pages": _LEVEL,
    "pull-requests": _LEVEL,
    "repository-projects": _LEVEL,
    "security-events": _LEVEL,
    "statuses": _LEVEL,
    "vulnerability-alerts": _NO_WRITE,
}
PERMISSIONS = OneOf(
    options=(
        MappingValue(properties=_PERMISSIONS),
        StringValue(constants=("read-all", "write-all")),
    )
)
CONCURRENCY_MAPPING = MappingValue(
    properties={
        "group": NON_EMPTY_STRING,
        "cancel-in-progress": BOOLEAN,
        "queue": StringValue(constants=("single", "max")),
    },
    required=("group",),
)
DEFAULTS_RUN = MappingValue(properties={"shell": NON_EMPTY_STRING, "working-directory": NON_EMPTY_STRING})

# --- steps ---

_STEP_COMMON: dict[str, Definition] = {
    "name": with_allowed(STRING, _STEP),
    "id": NON_EMPTY_STRING,
    "continue-on-error": with_allowed(BOOLEAN, _STEP),
}
_STEP_RUNNING: dict[str, Definition] = {
    **_STEP_COMMON,
    "if": with_allowed(STRING, STEP_CONDITION),
    "timeout-minutes": with_allowed(NUMBER, _STEP),
    "env": _dictionary(STRING, _STEP),
    "background": BOOLEAN,
}
RUN_STEP = MappingValue(
    properties={
        **_STEP_RUNNING,
        "run": with_allowed(STRING, _STEP),
        "shell": NON_EMPTY_STRING,
        "working-directory": with_allowed(STRING, _STEP),
    },
    required=("run",),
)
REGULAR_STEP = MappingValue(
    properties={**_STEP_RUNNING, "uses": NON_EMPTY_STRING, "with": _dictionary(STRING, _STEP)},
    required=("uses",),
)
WAIT_STEP = MappingValue(properties={**_STEP_COMMON, "wait": STRING_OR_LIST}, required=("wait",))
WAIT_ALL_STEP = MappingValue(
    properties={**_STEP_COMMON, "wait-all": OneOf(options=(NullValue(), BOOLEAN))}, required=("wait-all",)
)
CANCEL_STEP = MappingValue(properties={**_STEP_COMMON, "cancel": NON_EMPTY_STRING}, required=("cancel",))


def _steps_item() -> Definition:
    return STEPS_ITEM


PARALLEL_STEP = MappingValue(properties={"parallel": SequenceValue(item=_steps_item)}, required=("parallel",))
STEPS_ITEM: Definition = OneOf(
    options=(RUN_STEP, REGULAR_STEP, WAIT_STEP, WAIT_ALL_STEP, CANCEL_STEP, PARALLEL_STEP)
)
STEP_KEYS = MappingValue(
    properties={
        **RUN_STEP.properties,
        **REGULAR_STEP.properties,
        **WAIT_STEP.properties,
        **CANCEL_STEP.properties,
    }
)
"""The keys of all kinds of steps together, for reading one that was checked."""
EXPERIMENTAL_STEP_KEYS = frozenset({"background", "wait", "wait-all", "cancel"})
"""Keys GitHub takes only where background steps are switched on."""

# --- jobs ---

MATRIX_FILTER = SequenceValue(item=_dictionary(Anything()))
MATRIX = MappingValue(
    properties={"include": MATRIX_FILTER, "exclude": MATRIX_FILTER},
    loose_key=NON_EMPTY_STRING,
    loose_value=SequenceValue(item=Anything()),
)
STRATEGY = MappingValue(
    properties={"fail-fast": BOOLEAN, "max-parallel": NUMBER, "matrix": MATRIX}, allowed=_NEEDS
)
RUNS_ON = OneOf(
    options=(
        NON_EMPTY_STRING,
        SEQUENCE_OF_NON_EMPTY_STRING,
        MappingValue(properties={"group": NON_EMPTY_STRING, "labels": STRING_OR_LIST}),
    ),
    allowed=_STRATEGY,
)
_CONTAINER_PROPERTIES: dict[str, Definition] = {
    "image": NON_EMPTY_STRING,
    "options": STRING,
    "env": _dictionary(with_allowed(STRING, _RUNNER)),
    "ports": SEQUENCE_OF_NON_EMPTY_STRING,
    "volumes": SEQUENCE_OF_NON_EMPTY_STRING,
    "credentials": MappingValue(
        properties={"username": NON_EMPTY_STRING, "password": NON_EMPTY_STRING}, allowed=_CREDENTIALS
    ),
}
CONTAINER = OneOf(options=(STRING, MappingValue(properties=_CONTAINER_PROPERTIES)), allowed=_STRATEGY)
SERVICES_CONTAINER = OneOf(
    options=(
        NON_EMPTY_STRING,
        MappingValue(properties={**_CONTAINER_PROPERTIES, "entrypoint": STRING, "command": STRING}),
    )
)
ENVIRONMENT = OneOf(
    options=(
        STRING,
        MappingValue(
            properties={
                "name": with_allowed(STRING, _STRATEGY),
                "url": with_allowed(STRING, _RUNNER_NO_SECRETS),
                "deployment": BOOLEAN,
            },
            required=("name",),
        ),
    ),
    allowed=_STRATEGY,
)
SNAPSHOT = OneOf(
    options=(
        NON_EMPTY_STRING,
        MappingValue(
            properties={
                "image-name": NON_EMPTY_STRING,
                "if": with_allowed(STRING, STEP_CONDITION),
                "version": NON_EMPTY_STRING,
            },
            required=("image-name",),
        ),
    ),
    allowed=_STRATEGY,
)
_JOB_COMMON: dict[str, Definition] = {
    "name": with_allowed(STRING, _STRATEGY),
    "needs": STRING_OR_LIST,
    "if": with_allowed(STRING, JOB_CONDITION),
    "permissions": PERMISSIONS,
    "concurrency": OneOf(options=(NON_EMPTY_STRING, CONCURRENCY_MAPPING), allowed=_STRATEGY),
    "strategy": STRATEGY,
}
JOB_FACTORY = MappingValue(
    properties={
        **_JOB_COMMON,
        "runs-on": RUNS_ON,
        "timeout-minutes": with_allowed(NUMBER, _STRATEGY),
        "cancel-timeout-minutes": with_allowed(NUMBER, _STRATEGY),
        "continue-on-error": with_allowed(BOOLEAN, _STRATEGY),
        "container": CONTAINER,
        "services": _dictionary(SERVICES_CONTAINER, _STRATEGY),
        "env": _dictionary(STRING, _JOB_ENV),
        "environment": ENVIRONMENT,
        "outputs": _dictionary(with_allowed(STRING, _RUNNER)),
        "defaults": MappingValue(properties={"run": with_allowed(DEFAULTS_RUN, _JOB_DEFAULTS)}),
        "steps": SequenceValue(item=STEPS_ITEM),
        "snapshot": SNAPSHOT,
    },
    required=("runs-on",),
)
WORKFLOW_JOB = MappingValue(
    properties={
        **_JOB_COMMON,
        "uses": NON_EMPTY_STRING,
        "with": _dictionary(with_allowed(SCALAR, _STRATEGY)),
        "secrets": OneOf(
            options=(_dictionary(with_allowed(SCALAR, _JOB_ENV)), StringValue(constants=("inherit",)))
        ),
    },
    required=("uses",),
)
JOB = OneOf(options=(JOB_FACTORY, WORKFLOW_JOB))
CALLED_JOB_KEYS = {"uses": "ref", "with": "input-values", "secrets": "secret-values"}
"""The keys of a job that calls a workflow, with the names they have in GitHub's templates."""

WORKFLOW_ROOT = MappingValue(
    properties={
        "on": ON,
        "name": STRING,
        "description": STRING,
        "run-name": with_allowed(STRING, _WORKFLOW),
        "defaults": MappingValue(properties={"run": DEFAULTS_RUN}),
        "env": _dictionary(STRING, _WORKFLOW_ENV),
        "permissions": PERMISSIONS,
        "concurrency": OneOf(options=(STRING, CONCURRENCY_MAPPING), allowed=_WORKFLOW),
        "jobs": _dictionary(JOB),
    },
    required=("on", "jobs"),
)
