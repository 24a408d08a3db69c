"""``cloche run``: what the command line says, made into a request."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloche.cli.compose import start_early
from cloche.errors import UsageError
from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Mapping


@record
class RunOptions:
    """The command line of ``cloche run``, read but not yet looked up."""

    workflow: str | None
    directory: Path | None
    event: str | None
    event_path: Path | None
    jobs: tuple[str, ...]
    matrix: Mapping[str, str]
    secrets: tuple[str, ...]
    secret_file: Path | None
    variables: Mapping[str, str]
    inputs: Mapping[str, str]
    env: Mapping[str, str]
    flags: Mapping[str, object]
    image: str | None
    include: tuple[str, ...]
    skip_unsupported: bool
    output: str
    quiet: bool
    verbose: bool
    metrics_file: Path | None
    on_failure: str | None = None


def _pairs(separator: str) -> click.ParamType[tuple[str, str]]:
    class Pair(click.ParamType[tuple[str, str]]):
        name = f"NAME{separator}VALUE"

        def convert(
            self, value: str, param: click.Parameter | None, ctx: click.Context | None
        ) -> tuple[str, str]:
            name, found, text = value.partition(separator)
            if not found or not name:
                self.fail(f"{value!r} is not {self.name}", param, ctx)
            return name, text.lstrip() if separator == ":" else text

    return Pair()


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


WAIT = "1h"
"""How long ``--wait`` waits that does not say."""


class _RunCommand(click.Command):
    """Reads a bare ``--wait`` as one with a duration: click would take the next argument for it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [f"--wait={WAIT}" if arg == "--wait" else arg for arg in args])


@click.command("run", cls=_RunCommand)
@click.argument("workflow", required=False)
@click.option("-C", "directory", type=_FOLDER, help="The repository; else the nearest one above this folder.")
@click.option("-e", "--event", help="The event that happened (default: push, or one the workflow declares).")
@click.option("--event-path", type=_FILE, help="A JSON file with the event's payload.")
@click.option("-j", "--job", "jobs", multiple=True, help="Only this job, and those it needs. Repeatable.")
@click.option("--matrix", type=_pairs(":"), multiple=True, help="Only legs with this value. Repeatable.")
@click.option(
    "-s",
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME",
    help="A secret: its value is the environment variable of that name, or asked for. Repeatable.",
)
@click.option("--secret-file", type=_FILE, help="A file of NAME=value lines, or a JSON object.")
@click.option(
    "--var", "variables", type=_pairs("="), multiple=True, help="A value of the vars context. Repeatable."
)
@click.option(
    "--input", "inputs", type=_pairs("="), multiple=True, help="A workflow_dispatch input. Repeatable."
)
@click.option("--env", "env", type=_pairs("="), multiple=True, help="An environment variable. Repeatable.")
@click.option("--vm", "provider", help="What makes the VM: auto (default), qemu, sandbox (no VM) or fake.")
@click.option("--image", help="The image that serves ubuntu-* labels (default: default).")
@click.option("--cpus", type=click.IntRange(min=1), help="vCPUs of the VM (default: 2).")
@click.option("--memory", help="Memory of the VM, such as 4GiB (default: 2GiB).")
@click.option("--disk", help="Largest size of the VM's disk, such as 32GiB (default: 16GiB).")
@click.option("--network", type=click.Choice(["user", "none"]), help="A way out, or none (default: user).")
@click.option(
    "--time", "time_limit", metavar="DURATION", help="The most that a whole run may take, such as 30m."
)
@click.option(
    "--output-limit", metavar="SIZE", help="The most that all steps together may write, such as 100MiB."
)
@click.option(
    "--stop-on-failure/--no-stop-on-failure",
    default=None,
    help="The first job that fails cancels the others, or not.",
)
@click.option(
    "--snapshot",
    type=click.Choice(["never", "on-failure", "each-step"]),
    help="Keep the run as it is before a step that fails, or before each, for `cloche rewind` (default: never). "
    "What is kept holds whatever the VM's memory held, secrets too.",
)
@click.option(
    "--on-failure",
    metavar="shell|keep[=DURATION]",
    help="When a step fails: a shell where it ran, on this terminal; or keep the VM of a run that failed for "
    "`cloche shell` (30m; the daemon owns it).",
)
@click.option(
    "--wait",
    metavar="[=DURATION]",
    help=f"Wait for a place among the sessions (for {WAIT} at most), if none is free.",
)
@click.option(
    "--include", multiple=True, metavar="PATH", help="An ignored path to check out all the same. Repeatable."
)
@click.option(
    "--skip-unsupported", is_flag=True, help="Skip jobs whose labels no image serves, instead of refusing."
)
@click.option(
    "--output", type=click.Choice(["console", "plain", "jsonl"]), default="console", show_default=True
)
@click.option("-q", "--quiet", is_flag=True, help="Only errors and how it ended.")
@click.option("-v", "--verbose", is_flag=True, help="Cloche's own log too, on standard error.")
@click.option(
    "--metrics-file", type=_NEW_FILE, help="Write metrics there at the end, in Prometheus' text form."
)
def run(
    *,
    workflow: str | None,
    directory: Path | None,
    event: str | None,
    event_path: Path | None,
    jobs: tuple[str, ...],
    matrix: tuple[tuple[str, str], ...],
    secrets: tuple[str, ...],
    secret_file: Path | None,
    variables: tuple[tuple[str, str], ...],
    inputs: tuple[tuple[str, str], ...],
    env: tuple[tuple[str, str], ...],
    provider: str | None,
    image: str | None,
    cpus: int | None,
    memory: str | None,
    disk: str | None,
    network: str | None,
    time_limit: str | None,
    output_limit: str | None,
    stop_on_failure: bool | None,
    snapshot: str | None,
    on_failure: str | None,
    wait: str | None,
    include: tuple[str, ...],
    skip_unsupported: bool,
    output: str,
    quiet: bool,
    verbose: bool,
    metrics_file: Path | None,
) -> None:
    """Run WORKFLOW (a file, or its name) in a VM of its own.

    Without WORKFLOW, every workflow of the repository that the event triggers runs, each in its own VM.

    Ends with 0 (success), 1 (a workflow failed), 2 (a workflow or the command line is wrong), 3 (no VM could be
    had) or 130 (interrupted).
    """
    flags = {
        "vm.provider": provider,
        "vm.cpus": cpus,
        "vm.memory": memory,
        "vm.disk": disk,
        "vm.network": network,
        "limits.time": time_limit,
        "limits.output": output_limit,
        "run.stop_on_failure": stop_on_failure,
        "snapshots.mode": snapshot,
        "session.wait": wait,
    }
    options = RunOptions(
        workflow=workflow,
        directory=directory,
        event=event,
        event_path=event_path,
        jobs=jobs,
        matrix=dict(matrix),
        secrets=secrets,
        secret_file=secret_file,
        variables=dict(variables),
        inputs=dict(inputs),
        env=dict(env),
        flags=flags,
        image=image,
        include=include,
        skip_unsupported=skip_unsupported,
        output=output,
        quiet=quiet,
        verbose=verbose,
        metrics_file=metrics_file,
        on_failure=on_failure,
    )
    with start_early(provider):
        import_asyncio()
        from cloche.cli.running import run_workflows

        sys.exit(run_workflows(options, read_secrets(secrets, secret_file)))


def import_asyncio() -> None:
    """Import asyncio as where Python has no TLS: nothing speaks it through asyncio here, and it takes 6 ms."""
    if "ssl" not in sys.modules:
        sys.modules["ssl"] = None  # type: ignore[assignment] # how an import is made to fail
        import asyncio  # noqa: F401 - for the modules that come

        del sys.modules["ssl"]


def read_secrets(names: tuple[str, ...], file: Path | None) -> dict[str, str]:
    """Collect secrets from a file, the environment and, on a terminal, the user. UsageError for a missing one."""
    found = _read_secret_file(file) if file else {}
    for name in names:
        found[name] = _read_secret(name)
    return found


def _read_secret(name: str) -> str:
    import os

    if "=" in name:
        raise UsageError(
            "a secret's value does not belong on a command line, where every user of this machine can read it",
            hint=f"put it in the environment and say -s {name.partition('=')[0]}, or use --secret-file",
        )
    if name in os.environ:
        return os.environ[name]
    if not sys.stdin.isatty():
        raise UsageError(
            f"there is no environment variable {name} for the secret of that name",
            hint=f"export {name}=…, use --secret-file, or run on a terminal to be asked",
        )
    from getpass import getpass

    return getpass(f"value of the secret {name}: ")


def _read_secret_file(file: Path) -> dict[str, str]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the secret file {file}: {error}") from None
    if text.lstrip().startswith("{"):
        return _read_json_secrets(file, text)
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator or not name.strip():
            raise UsageError(f"{file}:{number}: expected NAME=value")  # the line itself may be a secret
        found[name.strip()] = _unquoted(value.strip())
    return found


def _read_json_secrets(file: Path, text: str) -> dict[str, str]:
    import json

    try:
        data = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{file}: not JSON: {error}") from None
    wrong = [key for key, value in data.items() if not isinstance(value, str)]
    if wrong:
        raise UsageError(f"{file}: the value of {wrong[0]!r} is not a string")
    return dict(data)


def _unquoted(value: str) -> str:
    quotes = ("'", '"')
    if len(value) > 1 and value[0] == value[-1] and value[0] in quotes:
        return value[1:-1]
    return value
