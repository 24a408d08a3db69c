"""Reading what the operator's files, the environment, a repository and the flags say, in that order."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloche.config.kinds import LABELS, NETWORK, TEXT, Kind
from cloche.config.paths import config_dir
from cloche.config.settings import SECTIONS, Command, Settings, kinds
from cloche.config.tomlfile import TomlFile, open_toml
from cloche.errors import Position, UsageError
from cloche.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SYSTEM_FILE = Path("/etc/cloche/config.toml")
REPOSITORY_FILE = "cloche.toml"
_RUNS_ON = "runs-on"
_RUN = kinds("run")
_REQUEST = {**kinds("limits"), "network": NETWORK, **_RUN}
"""What a repository may say under ``[run]``."""
_COMMANDS = {"setup": "Set up", "cleanup": "Clean up"}
_OPTIONS = {"limits.output": "--output-limit", "snapshots.mode": "--snapshot"}
_SHOWN = {"memory": format_size, "disk": format_size, "output": format_size, "time": format_duration}
_Values = dict[tuple[str, str], object]


def load_settings(
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] | None = None,
    repository: Path | None = None,
) -> Settings:
    """Read all that applies: system file, user's file, environment, a repository's wishes, flags.

    ``flags`` maps ``"section.key"`` to what the command line said, ``None`` for nothing. ``repository`` is a
    folder whose ``cloche.toml`` may ask or narrow. Raises UsageError naming file, key and what was expected.
    """
    values: _Values = {}
    labels: dict[str, str] = {}
    for path in (SYSTEM_FILE, config_dir(environ) / "config.toml"):
        found, more = _read_operator_file(path)
        values |= found
        labels |= more
    values |= _read_environment(environ)
    settings = _build(values, labels)
    if repository is not None:
        settings = _narrow(settings, repository / REPOSITORY_FILE)
    return _with_flags(settings, flags or {})


def _build(values: _Values, labels: Mapping[str, str]) -> Settings:
    sections = {
        name: made(**{key: value for (section, key), value in values.items() if section == name})
        for name, made in SECTIONS.items()
    }
    return Settings(**sections, runs_on=labels)


def _with_flags(settings: Settings, flags: Mapping[str, object]) -> Settings:
    for name, value in flags.items():
        section, _, key = name.partition(".")
        if value is not None:
            option = _OPTIONS.get(name, f"--{key.replace('_', '-')}")
            read = _read_value(kinds(section)[key], value, option)
            changed = dataclasses.replace(getattr(settings, section), **{key: read})
            settings = dataclasses.replace(settings, **{section: changed})
    return settings


def _read_value(kind: Kind, value: object, name: str, position: Position | None = None) -> Any:
    try:
        return kind.read(value)
    except ValueError:
        shown = str(value) if isinstance(value, (dict, list)) else repr(value)
        raise UsageError(f"{name} is {shown[:80]}; expected {kind.expected}", position=position) from None


# Files


def _read_operator_file(path: Path) -> tuple[_Values, dict[str, str]]:
    values: _Values = {}
    labels: dict[str, str] = {}
    file = open_toml(path)
    if file is None:
        return values, labels
    for section, table in file.tables.items():
        if section == _RUNS_ON:
            labels = _read_value(LABELS, table, f"[{_RUNS_ON}]", file.position(section))
            continue
        if section not in SECTIONS:
            raise _unknown(f"[{section}]", section, (*SECTIONS, _RUNS_ON), file.position(section))
        for key, value in _table(file, section, table).items():
            known = kinds(section)
            place = file.position(section, key)
            if key not in known:
                raise _unknown(f"[{section}] {key}", key, known, place)
            values[section, key] = _read_value(known[key], value, f"[{section}] {key}", place)
    return values, labels


def _table(file: TomlFile, section: str, table: object) -> dict[str, object]:
    if not isinstance(table, dict):
        raise UsageError(
            f"{section!r} is a value; expected a table, [{section}]", position=file.position(section)
        )
    return table


def _unknown(name: str, written: str, known: Iterable[str], position: Position | None = None) -> UsageError:
    import difflib

    close = difflib.get_close_matches(written, list(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    return UsageError(f"there is no setting {name}", hint=hint, position=position)


# The environment


def variable(section: str, key: str) -> str:
    """Name the environment variable of a setting: ``CLOCHE_VM_CPUS``."""
    return f"CLOCHE_{section}_{key}".upper()


def _read_environment(environ: Mapping[str, str]) -> _Values:
    names = {variable(section, key): (section, key) for section in SECTIONS for key in kinds(section)}
    prefixes = tuple(variable(section, "") for section in SECTIONS)
    values: _Values = {}
    for name, text in environ.items():
        if name in names and text:
            section, key = names[name]
            values[section, key] = _read_value(kinds(section)[key], _guess(text), name)
        elif name not in names and name.startswith(prefixes):
            raise _unknown(f"{name} (an environment variable)", name, names)
    return values


def _guess(text: str) -> object:
    """Read a variable's text as the TOML value it looks like."""
    if text.isascii() and text.isdecimal():
        return int(text)
    return {"true": True, "false": False}.get(text, text)


# What a repository asks


def _narrow(settings: Settings, path: Path) -> Settings:
    file = open_toml(path)
    if file is None:
        return settings
    for section in file.tables:
        if section not in ("run", *_COMMANDS):
            raise _refused_section(section, file.position(section))
    asked = {name: _command(file, name) for name in _COMMANDS if name in file.tables}
    return _grant(dataclasses.replace(settings, asked=asked), file)


def _refused_section(section: str, position: Position) -> UsageError:
    if section in (*SECTIONS, _RUNS_ON):
        return _not_yours(f"[{section}]", position)
    return _unknown(f"[{section}]", section, ("run", *_COMMANDS), position)


def _command(file: TomlFile, section: str) -> Command:
    table = _table(file, section, file.tables[section])
    for key in table:
        if key != "run":
            raise _unknown(f"[{section}] {key}", key, ("run",), file.position(section, key))
    position = file.position(section, "run")
    text = _read_value(TEXT, table.get("run"), f"[{section}] run", position)
    return Command(f"{_COMMANDS[section]} ({REPOSITORY_FILE})", text, position)


def _grant(settings: Settings, file: TomlFile) -> Settings:
    """Give a repository what its ``[run]`` asks. UsageError for more than is allowed."""
    vm: dict[str, Any] = {}
    limits: dict[str, Any] = {key: settings.allowed(key) for key in kinds("limits")}
    run: dict[str, Any] = {}
    for key, value in _table(file, "run", file.tables.get("run", {})).items():
        place = file.position("run", key)
        if key not in _REQUEST:
            raise _refused_key(key, place)
        wish = _read_value(_REQUEST[key], value, f"[run] {key}", place)
        _check_allowed(settings, key, wish, place)
        (run if key in _RUN else limits if key in ("time", "output") else vm)[key] = wish
    return dataclasses.replace(
        settings,
        vm=dataclasses.replace(settings.vm, **vm),
        limits=dataclasses.replace(settings.limits, **limits),
        run=dataclasses.replace(settings.run, **run),
    )


def _refused_key(key: str, position: Position) -> UsageError:
    if any(key in kinds(section) for section in SECTIONS):
        return _not_yours(f"[run] {key}", position)
    return _unknown(f"[run] {key}", key, _REQUEST, position)


def _not_yours(name: str, position: Position) -> UsageError:
    return UsageError(
        f"{name} cannot be set by a repository: this file comes with the code and may only ask for less",
        hint=f"only [run] ({', '.join(_REQUEST)}), [setup] and [cleanup] can be; the rest belongs in"
        " ~/.config/cloche/config.toml",
        position=position,
    )


def _check_allowed(settings: Settings, key: str, wish: Any, position: Position) -> None:
    if key == "network":
        if (wish, settings.vm.network) == ("user", "none"):
            raise UsageError('[run] network asks for "user"; this machine allows "none"', position=position)
        return
    limit = None if key in _RUN else settings.allowed(key)
    if limit is not None and wish > limit:
        show = _SHOWN.get(key, str)
        raise UsageError(
            f"[run] {key} asks for {show(wish)}; this machine allows {show(limit)}",
            hint=f"ask for less, or raise [limits] {key} in ~/.config/cloche/config.toml",
            position=position,
        )
