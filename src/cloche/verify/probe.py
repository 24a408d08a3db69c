"""The workflows that look: what their steps do in the guest, and how to read what they said.

A workflow's *nonce* is random and given to its own steps alone, so another workflow that shows it has been where it
should not be. Each step's *challenge* is random too and given to that step alone: a step that can name those of the
steps before it, in order, is where they were.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import field
from typing import TYPE_CHECKING, Literal

from cloche.records import record
from cloche.verify.observations import Said

if TYPE_CHECKING:
    from collections.abc import Iterable

Duty = Literal["look", "hold", "soil", "search"]

MAX_OUTPUT = 256 * 1024
"""Characters of one step's output that are looked at: a guest may say what it likes."""
_MAX_VALUE = 200
_LINE = re.compile(r"^verify: (\w+)=(.*)$", re.MULTILINE)
_NUMBER = re.compile(r"\d{1,15}(\.\d{1,15})?", re.ASCII)
PORT = 39157
"""Where the soiling step listens."""
CLOCK_SHIFT = 86400
"""Seconds that the soiling step moves the clock by."""

# Shell builtins where they will do: under emulation every process costs 50 ms. The last resort of each line is for
# guests that are none: the fake has no /proc to speak of.
_LOOK = """\
here="$HOME/cloche-verify-$NONCE"
echo "$CHALLENGE" >> "$here"
read -r boot_id < /proc/sys/kernel/random/boot_id
name=""; up=""; mark=""; beat=""
if [ -e /proc/sys/kernel/hostname ]; then read -r name < /proc/sys/kernel/hostname; else name=$(hostname); fi
if [ -e /proc/uptime ]; then read -r up rest < /proc/uptime; fi
if [ -e /proc/sys/kernel/core_pattern ]; then read -r mark < /proc/sys/kernel/core_pattern; fi
echo "verify: boot_id=$boot_id"
echo "verify: hostname=$name"
echo "verify: uptime=$up"
echo "verify: clock=$EPOCHREALTIME"
echo "verify: kernel_mark=$mark"
while read -r word; do echo "verify: chain=$word"; done < "$here"
for path in /cloche-verify-* /tmp/cloche-verify-* "$HOME"/cloche-verify-*; do echo "verify: path=$path"; done
if [ -e "$here-pid" ]; then
  read -r pid < "$here-pid"
  if kill -0 "$pid" 2>/dev/null; then echo "verify: alive=yes"; else echo "verify: alive=no"; fi
fi
"""
_FIRST = """\
touch "/tmp/cloche-verify-$NONCE"
sleep 3600 > /dev/null 2>&1 &
echo $! > "$HOME/cloche-verify-$NONCE-pid"
"""
# A word in a setting that a kernel has once, whatever namespaces there are (core(5)): workflows in one kernel would
# read each other's. Only where the kernel is the guest's own.
_MARK_KERNEL = """\
if echo "cloche-verify-$NONCE" | sudo tee /proc/sys/kernel/core_pattern > /dev/null; then
  echo "verify: did=kernel-mark"
fi
"""
_SOIL = """\
if touch "/tmp/cloche-verify-$NONCE-soil"; then echo "verify: did=tmp-file"; fi
if echo "CLOCHE_VERIFY=$NONCE" >> "$GITHUB_ENV"; then echo "verify: did=job-environment"; fi
"""
# One sudo for all, since each costs many processes; mount(2) by hand, since an image may lack mount(8).
_SOIL_AS_ROOT = f"""\
cat > "/tmp/cloche-verify-$NONCE.py" <<'END'
import ctypes, os, socket, time
mine = "cloche-verify-" + os.environ["NONCE"]
os.mkdir("/mnt/" + mine)
mount = ctypes.CDLL(None).mount
if mount(mine.encode(), ("/mnt/" + mine).encode(), b"tmpfs", ctypes.c_ulong(0), None) == 0:
    print("verify: did=mount", flush=True)
server = socket.create_server(("0.0.0.0", {PORT}))
print("verify: did=listener", flush=True)
open("/tmp/" + mine + "-listens", "w").close()
os.dup2(os.open(os.devnull, os.O_RDWR), 1)
time.sleep(3600)
END
sudo NONCE="$NONCE" bash -c '
if touch "/cloche-verify-$NONCE"; then echo "verify: did=root-file"; fi
if echo "CLOCHE_VERIFY=$NONCE" >> /etc/environment; then echo "verify: did=system-environment"; fi
while sleep 60; do : ; done < /dev/null > /dev/null 2>&1 &
echo "verify: did=process"
if command -v python3 > /dev/null; then
  nohup python3 "/tmp/cloche-verify-$NONCE.py" < /dev/null 2>/dev/null &
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    if [ -e "/tmp/cloche-verify-$NONCE-listens" ]; then break; fi
    sleep 0.5
  done
fi
' || :
"""
_SOIL_CLOCK = f"""\
if sudo date -s "+{CLOCK_SHIFT} seconds" > /dev/null; then echo "verify: did=clock"; fi
"""
_SEARCH = """\
ls -a / /tmp "$HOME" || :
env
"""
_SEARCH_PROCESSES = f"""\
cat /etc/environment /proc/mounts /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' || :
ls /mnt || :
if grep -q "{PORT:04X} [0-9A-F]*:0000 0A" /proc/net/tcp; then echo "verify: found=listener"; fi
"""


@record
class StepPlan:
    """A step to be. ``seconds`` is how long a holding one stays."""

    duty: Duty = "look"
    seconds: float = 0.0
    challenge: str = field(default_factory=lambda: secrets.token_hex(8))


@record
class WorkflowPlan:
    """A workflow to be, with the nonce that only its own steps are given."""

    name: str
    steps: tuple[StepPlan, ...]
    nonce: str = field(default_factory=lambda: secrets.token_hex(16))


def workflow_text(plan: WorkflowPlan, *, own_kernel: bool, real: bool) -> str:
    """Write the workflow.

    ``own_kernel``: it may change what belongs to the kernel. ``real``: there are processes, mounts and sockets.
    """
    lines = [f"name: {plan.name}", "on: push", "jobs:", "  verify:"]
    lines += ["    runs-on: ubuntu-latest", "    timeout-minutes: 10", "    steps:"]
    for number, step in enumerate(plan.steps, 1):
        script = _script(step, first=number == 1, own_kernel=own_kernel, real=real)
        lines += [
            f"      - name: {step.duty} {number}",
            f'        env: {{NONCE: "{plan.nonce}", CHALLENGE: "{step.challenge}"}}',
            "        run: |",
            *(f"          {line}" for line in script.splitlines()),
        ]
    return "\n".join(lines) + "\n"


def _script(step: StepPlan, *, first: bool, own_kernel: bool, real: bool) -> str:
    parts = [_FIRST if first else "", _MARK_KERNEL if first and own_kernel else "", _LOOK]
    match step.duty:
        case "hold":
            parts.append(f"sleep {step.seconds:g}\n")
        case "soil":
            parts += [_SOIL, _SOIL_AS_ROOT if real else "", _SOIL_CLOCK if own_kernel else ""]
        case "search":
            parts += [_SEARCH, _SEARCH_PROCESSES if real else ""]
    return "".join(parts)


def read_output(output: str) -> Said:
    """Read what a step said; whatever is not of the expected form counts as not said."""
    told: dict[str, list[str]] = {}
    for key, value in _LINE.findall(output[:MAX_OUTPUT]):
        told.setdefault(key, []).append(value.strip()[:_MAX_VALUE])
    return Said(
        boot_id=_only(told, "boot_id"),
        hostname=_only(told, "hostname"),
        uptime=_number(_only(told, "uptime")),
        clock=_number(_only(told, "clock")),
        chain=tuple(told.get("chain", ())),
        alive={"yes": True, "no": False}.get(_only(told, "alive") or ""),
        kernel_mark=_only(told, "kernel_mark"),
        did=tuple(told.get("did", ())),
        found=tuple(told.get("found", ())),
    )


def nonces_in(output: str, known: Iterable[str]) -> tuple[str, ...]:
    """Return which of the ``known`` nonces appear in a step's output."""
    return tuple(nonce for nonce in known if nonce in output)


def _only(told: dict[str, list[str]], key: str) -> str | None:
    """A value said exactly once: a step that says two things has said nothing."""
    values = told.get(key, [])
    return values[0] if len(values) == 1 and values[0] else None


def _number(text: str | None) -> float | None:
    """A number as clocks write it: no words that float() would take for one."""
    return float(text) if text and _NUMBER.fullmatch(text) else None
