"""The schema of an ``action.yml``.

Source: GitHub's published schema (``action-v1.0.json`` in actions/languageservices) and docs.github.com,
"Metadata syntax reference".
"""

from __future__ import annotations

from cloche.workflow.schema import (
    Allowed,
    Anything,
    BooleanValue,
    Definition,
    MappingValue,
    OneOf,
    SequenceValue,
    StringValue,
    with_allowed,
)


def _allow(contexts: str, functions: str = "") -> Allowed:
    return Allowed(frozenset(contexts.split()), frozenset(functions.split()))


_HASH_FILES = "hashFiles(1,255)"
_STATUS = f"always(0,0) cancelled(0,0) failure(0,0) success(0,0) {_HASH_FILES}"
_STEP = _allow("github inputs strategy matrix steps job runner env", _HASH_FILES)
ACTION_STEP_CONDITION = _allow("github inputs strategy matrix steps job runner env", _STATUS)
RUNS_CONDITION = _allow("github inputs strategy matrix job runner env", _STATUS)
_INPUTS = _allow("inputs")
_DEFAULT = _allow("github strategy matrix job runner", _HASH_FILES)
_OUTPUT = _allow("github strategy matrix steps inputs job runner env")

_STRING = StringValue()
_NON_EMPTY_STRING = StringValue(non_empty=True)
_USING = StringValue(constants=("docker", "node12", "node16", "node20", "node24", "composite"))
_COLORS = ("white", "yellow", "blue", "green", "orange", "red", "purple", "gray-dark")

# The Feather icons of version 4.28.0 less those for brands and some others, as the documentation lists them.
_ICONS = """
    activity airplay alert-circle alert-octagon alert-triangle align-center align-justify align-left
    align-right anchor aperture archive arrow-down-circle arrow-down-left arrow-down-right arrow-down
    arrow-left-circle arrow-left arrow-right-circle arrow-right arrow-up-circle arrow-up-left
    arrow-up-right arrow-up at-sign award bar-chart-2 bar-chart battery-charging battery bell-off bell
    bluetooth bold book-open book bookmark box briefcase calendar camera-off camera cast check-circle
    check-square check chevron-down chevron-left chevron-right chevron-up chevrons-down chevrons-left
    chevrons-right chevrons-up circle clipboard clock cloud-drizzle cloud-lightning cloud-off cloud-rain
    cloud-snow cloud code command compass copy corner-down-left corner-down-right corner-left-down
    corner-left-up corner-right-down corner-right-up corner-up-left corner-up-right cpu credit-card crop
    crosshair database delete disc dollar-sign download-cloud download droplet edit-2 edit-3 edit
    external-link eye-off eye fast-forward feather file-minus file-plus file-text file film filter flag
    folder-minus folder-plus folder gift git-branch git-commit git-merge git-pull-request globe grid
    hard-drive hash headphones heart help-circle home image inbox info italic layers layout life-buoy
    link-2 link list loader lock log-in log-out mail map-pin map maximize-2 maximize menu message-circle
    message-square mic-off mic minimize-2 minimize minus-circle minus-square minus monitor moon
    more-horizontal more-vertical move music navigation-2 navigation octagon package paperclip
    pause-circle pause percent phone-call phone-forwarded phone-incoming phone-missed phone-off
    phone-outgoing phone pie-chart play-circle play plus-circle plus-square plus pocket power printer
    radio refresh-ccw refresh-cw repeat rewind rotate-ccw rotate-cw rss save scissors search send server
    settings share-2 share shield-off shield shopping-bag shopping-cart shuffle sidebar skip-back
    skip-forward slash sliders smartphone speaker square star stop-circle sun sunrise sunset tablet tag
    target terminal thermometer thumbs-down thumbs-up toggle-left toggle-right trash-2 trash
    trending-down trending-up triangle truck tv type umbrella underline unlock upload-cloud upload
    user-check user-minus user-plus user-x user users video-off video voicemail volume-1 volume-2
    volume-x volume watch wifi-off wifi wind x-circle x-square x zap-off zap zoom-in zoom-out
"""


def _texts(allowed: Allowed) -> MappingValue:
    return MappingValue(loose_key=_NON_EMPTY_STRING, loose_value=_STRING, allowed=allowed)


_STEP_COMMON: dict[str, Definition] = {
    "name": with_allowed(_STRING, _STEP),
    "id": _NON_EMPTY_STRING,
    "if": with_allowed(_STRING, ACTION_STEP_CONDITION),
    "env": _texts(_STEP),
    "continue-on-error": BooleanValue(allowed=_STEP),
}
_RUN_STEP = MappingValue(
    properties={
        **_STEP_COMMON,
        "run": with_allowed(_STRING, _STEP),
        "shell": with_allowed(_STRING, _STEP),
        "working-directory": with_allowed(_STRING, _STEP),
    },
    required=("run", "shell"),
)
_USES_STEP = MappingValue(
    properties={**_STEP_COMMON, "uses": _NON_EMPTY_STRING, "with": _texts(_STEP)}, required=("uses",)
)
_COMPOSITE_RUNS = MappingValue(
    properties={"using": _USING, "steps": SequenceValue(item=OneOf(options=(_RUN_STEP, _USES_STEP)))},
    required=("using", "steps"),
)
_CONDITION = with_allowed(_STRING, RUNS_CONDITION)
_CONTAINER_RUNS = MappingValue(
    properties={
        "using": _USING,
        "image": _NON_EMPTY_STRING,
        "entrypoint": _NON_EMPTY_STRING,
        "args": SequenceValue(item=with_allowed(_STRING, _INPUTS)),
        "env": _texts(_INPUTS),
        "pre-entrypoint": _NON_EMPTY_STRING,
        "pre-if": _CONDITION,
        "post-entrypoint": _NON_EMPTY_STRING,
        "post-if": _CONDITION,
    },
    required=("using", "image"),
)
_NODE_RUNS = MappingValue(
    properties={
        "using": _USING,
        "main": _NON_EMPTY_STRING,
        "pre": _NON_EMPTY_STRING,
        "pre-if": _CONDITION,
        "post": _NON_EMPTY_STRING,
        "post-if": _CONDITION,
    },
    required=("using", "main"),
)
_INPUT = MappingValue(
    properties={
        "description": _STRING,
        "required": BooleanValue(),
        "default": with_allowed(_STRING, _DEFAULT),
        "deprecationMessage": _STRING,
    },
    loose_key=_NON_EMPTY_STRING,
    loose_value=Anything(),
)
_OUTPUT_DEFINITION = MappingValue(
    properties={"description": _STRING, "value": with_allowed(_STRING, _OUTPUT)}
)

ACTION_ROOT = MappingValue(
    properties={
        "name": _NON_EMPTY_STRING,
        "description": _STRING,
        "author": _STRING,
        "inputs": MappingValue(loose_key=_NON_EMPTY_STRING, loose_value=_INPUT),
        "outputs": MappingValue(loose_key=_NON_EMPTY_STRING, loose_value=_OUTPUT_DEFINITION),
        "runs": OneOf(options=(_CONTAINER_RUNS, _NODE_RUNS, _COMPOSITE_RUNS)),
        "branding": MappingValue(
            properties={
                "icon": StringValue(constants=tuple(_ICONS.split())),
                "color": StringValue(constants=_COLORS),
            }
        ),
    },
    required=("name", "description", "runs"),
)
