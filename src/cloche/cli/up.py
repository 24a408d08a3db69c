"""``cloche up``: start the daemon, or be it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import click

from cloche.errors import ClocheError, ProviderError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import TextIO

    from cloche.config import Settings
    from cloche.metrics import Metrics

_READY_FD = "CLOCHE_READY_FD"  # from `cloche up` to the daemon it starts
_READY = "ready"
_FAILED = "failed "
_LOG_SIZE = 4 * 1024 * 1024
_LOGS = 3
_COLLECT_INTERVAL = 60.0
_GARBAGE = (700, 10, 10)
"""When Python searches for garbage, as it does by itself: other commands end before it would be worth it."""


@click.command("up")
@click.option("--vm", "provider", help="Whose VMs to keep ready: auto (default), qemu or sandbox.")
@click.option("--foreground", is_flag=True, help="Stay, and log to standard error: for systemd.")
def up(*, provider: str | None, foreground: bool) -> None:
    """Start the daemon; return once its VMs are ready.

    While it is up, `cloche run` takes its VMs from there. `cloche down` ends it.
    """
    from cloche.config import load_settings

    settings = load_settings(flags={"vm.provider": provider})
    if foreground:
        ready = os.environ.pop(_READY_FD, None)
        sys.exit(_be_daemon(settings, int(ready) if ready else None))
    sys.exit(_start(provider))


def _start(provider: str | None) -> int:
    """Start a daemon of its own session, and show how it comes up until it is ready."""
    from cloche.cli.console import note
    from cloche.config import daemon_dir, state_dir

    daemon_dir()
    log = state_dir() / "daemon.log"
    ours, theirs = os.pipe()
    asked = [sys.executable, "-m", "cloche.cli", "up", "--foreground"]
    if provider:
        asked += ["--vm", provider]
    process = subprocess.Popen(
        asked,
        pass_fds=[theirs],
        env={**os.environ, _READY_FD: str(theirs)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
    )
    os.close(theirs)
    with os.fdopen(ours, encoding="utf-8", errors="replace") as told:
        for line in told:
            text = line.rstrip("\n")
            if text == _READY:
                click.echo(f"cloche is up (process {process.pid}); log: {log}")
                return 0
            if text.startswith(_FAILED):
                code, _, message = text.removeprefix(_FAILED).partition(" ")
                sys.stderr.write(message.replace("\\n", "\n") + "\n")
                return int(code)
            note(text)
    raise ProviderError("the daemon ended while it came up", hint=f"its log: {log}")


# --- being the daemon


def _be_daemon(settings: Settings, ready_fd: int | None) -> int:
    told = os.fdopen(ready_fd, "w", encoding="utf-8", buffering=1) if ready_fd is not None else None
    _start_log(detached=told is not None)
    gc.set_threshold(*_GARBAGE)
    try:
        return asyncio.run(_serve(settings, told))
    except ClocheError as error:
        if told is None or told.closed:
            raise
        hint = f"\n  hint: {error.hint}" if error.hint else ""
        told.write(f"{_FAILED}{error.exit_code} " + f"error: {error}{hint}".replace("\n", "\\n") + "\n")
        return error.exit_code
    finally:
        if told is not None:
            told.close()


def _start_log(*, detached: bool) -> None:
    from cloche.config import state_dir

    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if detached:
        from logging.handlers import RotatingFileHandler

        state_dir().mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = RotatingFileHandler(
            state_dir() / "daemon.log", maxBytes=_LOG_SIZE, backupCount=_LOGS, encoding="utf-8"
        )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("cloche")
    log.setLevel(logging.INFO)
    log.handlers = [handler]
    log.propagate = False


async def _serve(settings: Settings, told: TextIO | None) -> int:
    from cloche.cli.compose import LENT, default_spec, make_daemon
    from cloche.config import daemon_dir

    def tell(text: str) -> None:
        logging.getLogger("cloche").info("%s", text)
        if told is not None and not told.closed:
            told.write(f"{text}\n")

    async with contextlib.AsyncExitStack() as resources:
        metrics = _metrics(settings)
        daemon = await resources.enter_async_context(make_daemon(daemon_dir(), settings, tell, metrics))
        if metrics and settings.metrics.listen:
            await resources.enter_async_context(metrics.serve(*settings.metrics.listen))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, lambda: daemon.stop(now=True))
        await _collect(settings, metrics)
        tell("making VMs ready")
        provider = settings.vm.provider
        await daemon.warm(LENT.get(provider, provider), default_spec(settings))
        tell(_READY)
        if told is not None:
            told.close()
        await _collect_until(daemon.stopped(), settings, metrics)
    return 0


def _metrics(settings: Settings) -> Metrics | None:
    """Return metrics to count with, where the operator wants any."""
    if settings.metrics.listen is None:
        return None
    from cloche.metrics import Metrics

    return Metrics()


async def _collect_until(
    end: Coroutine[None, None, None], settings: Settings, metrics: Metrics | None
) -> None:
    """Clear now and then what killed processes left that did without the daemon."""
    ending = asyncio.create_task(end)
    while not (await asyncio.wait({ending}, timeout=_COLLECT_INTERVAL))[0]:
        await _collect(settings, metrics)


async def _collect(settings: Settings, metrics: Metrics | None) -> None:
    from cloche.cli.running import open_store
    from cloche.config import runs_dir, sessions_dir, vms_dir
    from cloche.execution.checkout import remove_stale
    from cloche.session import SessionRegistry
    from cloche.session.collect import collect_leftovers

    remove_stale()
    if runs_dir().exists():
        await asyncio.to_thread(open_store(settings).expire)
    left = await collect_leftovers(SessionRegistry(sessions_dir()), vms_dir())
    if metrics:
        metrics.collected(left)
    for vm in left.vms:
        logging.getLogger("cloche").info("Cleared VM %s of a process that was killed", vm.vm_id)
