"""The ``cloche`` command: its subcommands are imported only when they are called."""

from __future__ import annotations

import importlib
from typing import ClassVar

import click

from cloche import __version__


class LazyGroup(click.Group):
    """A group that knows its commands' names and one-line helps, and imports the one that is called."""

    commands_by_name: ClassVar[dict[str, tuple[str, str]]] = {
        "run": ("cloche.cli.run:run", "Run workflows in a VM of their own."),
        "rewind": ("cloche.cli.rewind:rewind", "Go on with a run from before the step that failed."),
        "fork": ("cloche.cli.fork:fork", "Try other ways of carrying out the step that failed."),
        "runs": ("cloche.cli.runs:runs", "List the runs that can go on."),
        "shell": ("cloche.cli.shell:shell", "A shell in a run's VM, where its step is."),
        "check": ("cloche.cli.check:check", "Say whether GitHub takes a workflow, and if not, why not."),
        "eval": ("cloche.cli.eval:evaluate", "Say what an expression is worth."),
        "graph": ("cloche.cli.graph:graph", "Show which job waits for which."),
        "image": ("cloche.cli.image:image", "Build, import and look at images."),
        "up": ("cloche.cli.up:up", "Start the daemon: VMs ready before anyone asks."),
        "down": ("cloche.cli.down:down", "End the daemon."),
        "status": ("cloche.cli.status:status", "Tell what the daemon has and does."),
        "doctor": ("cloche.cli.doctor:doctor", "Say what this machine can do, and what to type to mend it."),
        "verify": (
            "cloche.cli.verify:verify",
            "Show that every workflow gets one VM of its own, by measuring.",
        ),
        "gc": ("cloche.cli.gc:gc", "Clear what killed runs left, and images that nothing uses."),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Name all commands, in the order that people meet them."""
        return list(self.commands_by_name)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a command."""
        if cmd_name not in self.commands_by_name:
            return None
        module, _, name = self.commands_by_name[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.commands_by_name.items()])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cloche")
def cloche() -> None:
    """Run GitHub-Actions workflows on this machine, one microVM per workflow."""
