"""Settings: the operator's files, the environment, flags; what a repository asks; where everything lives.

Two configurations, never mixed. The operator's says what is allowed. A repository's ``cloche.toml`` comes
with the code, may be hostile, and can only ask or narrow. See docs/configuration.md.
"""

from cloche.config.loading import REPOSITORY_FILE, SYSTEM_FILE, load_settings, variable
from cloche.config.paths import (
    config_dir,
    daemon_dir,
    data_dir,
    doors_dir,
    runs_dir,
    runtime_dir,
    sessions_dir,
    state_dir,
    vms_dir,
)
from cloche.config.settings import (
    DEFAULT_IMAGE,
    Command,
    CommandSettings,
    ImageSettings,
    LimitSettings,
    MetricsSettings,
    PoolSettings,
    RunSettings,
    SessionSettings,
    Settings,
    SnapshotSettings,
    VmSettings,
)

__all__ = [
    "DEFAULT_IMAGE",
    "REPOSITORY_FILE",
    "SYSTEM_FILE",
    "Command",
    "CommandSettings",
    "ImageSettings",
    "LimitSettings",
    "MetricsSettings",
    "PoolSettings",
    "RunSettings",
    "SessionSettings",
    "Settings",
    "SnapshotSettings",
    "VmSettings",
    "config_dir",
    "daemon_dir",
    "data_dir",
    "doors_dir",
    "load_settings",
    "runs_dir",
    "runtime_dir",
    "sessions_dir",
    "state_dir",
    "variable",
    "vms_dir",
]
