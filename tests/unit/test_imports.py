"""What a command imports is what its user waits for: nothing dear comes along that a plain run has no use for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
RUN = """
import cloche.cli.root, cloche.cli.run
cloche.cli.run.import_asyncio()
import cloche.cli.running, cloche.report.plain, cloche.pool
import cloche.vm.sandbox.provider
"""


def imported(statements: str, *options: str) -> set[str]:
    """Return the modules that a new Python has after these statements."""
    script = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{statements}\nprint(*sys.modules)"
    told = subprocess.run(
        [sys.executable, *options, "-c", script], capture_output=True, check=True, text=True
    )
    return set(told.stdout.split())


@pytest.mark.parametrize("statements", ["import cloche.cli.root", "import cloche.cli.run"])
def test_the_command_line_and_its_help_need_no_more_than_click(statements: str) -> None:
    dear = {
        "asyncio",
        "yaml",
        "ssl",
        "rich",
        "logging",
        "cloche.workflow",
        "cloche.execution",
        "cloche.config",
    }
    assert not imported(statements) & dear


def test_a_plain_run_in_a_sandbox_leaves_out_what_is_dear() -> None:
    modules = imported(RUN)
    dear = {
        *("ssl", "hashlib", "http", "email", "urllib.request", "tempfile", "tarfile", "importlib.metadata"),
        *("rich", "qemu", "prometheus_client", "sqlalchemy", "pydantic", "jsonschema", "tomllib"),
        *(
            "cloche.report.markdown",
            "cloche.report.console",
            "cloche.image.build",
            "cloche.vm.qemu",
            "cloche.vm.fake",
        ),
    }
    assert not modules & dear
    assert "asyncio" in modules  # or nothing of this was looked at


def test_what_was_left_out_of_asyncio_can_still_be_imported() -> None:
    assert "ssl" in imported(f"{RUN}\nimport ssl; ssl.create_default_context")


def test_data_classes_have_no_generated_methods() -> None:
    """Each would be compiled at every start: see cloche.records."""
    generated = """
import dataclasses
names = [one.__name__ for one in list(sys.modules.values()) if one.__name__.startswith("cloche")]
found = {
    kind.__qualname__
    for name in names
    for kind in vars(sys.modules[name]).values()
    if dataclasses.is_dataclass(kind) and isinstance(kind, type) and not hasattr(kind, "__record_fields__")
}
sys.modules = dict.fromkeys(found)
"""
    assert imported(RUN + generated) == set()


@pytest.mark.parametrize("module", ["cloche.guest.sandbox", "cloche.guest.__main__"])
def test_the_agent_starts_with_little_of_the_standard_library(module: str) -> None:
    modules = imported(f"import {module}", "-I", "-S")
    assert not modules & {
        "dataclasses",
        "inspect",
        "typing",
        "logging",
        "pathlib",
        "encodings.idna",
        "asyncio",
    }
    assert {"cloche.guest.agent", "tarfile", "hashlib"} <= modules  # a job's init cannot import them any more
