"""Measure Cloche against named baselines, in one run on this machine, and write bench/RESULTS.md.

    make bench                        everything
    .venv/bin/python bench/run.py --only act --rounds 20

Only ratios within one run mean anything: absolute figures drift with the machine and what else it does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloche.config import data_dir, vms_dir
from cloche.image.store import ImageStore
from cloche.vm.guest import ExecSpec, JobRootSpec
from cloche.vm.provider import Allocation, VmSpec
from cloche.vm.qemu.provider import QemuProvider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMAND_DEADLINE = 300.0
_SMALL = 10.0


@dataclass(frozen=True)
class Row:
    """One comparison: what was measured, in milliseconds or as said, its baseline, and what the issue hopes for.

    ``beyond`` is what of the measurements besides the median is to be told.
    """

    name: str
    ours: list[float]
    baseline_name: str
    baseline: list[float]
    target: str
    inverse: bool = False
    unit: str = "ms"
    beyond: str = ""

    @property
    def ratio(self) -> float:
        """Ours over the baseline's, or the other way round where the baseline is to be the slower."""
        ours, base = statistics.median(self.ours), statistics.median(self.baseline)
        return base / ours if self.inverse else ours / base


def main() -> None:
    """Run what is asked for and write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=sorted(BENCHES), action="append", help="just this one; repeatable")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--output", type=Path, default=HERE / "RESULTS.md")
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.only or BENCHES:
        print(f"{name}: {options.rounds} rounds …", flush=True)
        found = BENCHES[name](options.rounds)
        rows += found
        for row in found:
            print("  " + _line(row), flush=True)
    options.output.write_text(_report(rows, options.rounds), encoding="utf-8")
    print(f"written to {options.output}")


# --- a new VM against a cold boot


def new_vm(rounds: int) -> list[Row]:
    """Resume from the template against booting the same image cold, one after the other in turn."""
    return asyncio.run(_new_vm(rounds))


async def _new_vm(rounds: int) -> list[Row]:
    store = ImageStore(data_dir())
    resumed = QemuProvider(store, data_dir(), vms_dir())
    booted = QemuProvider(store, data_dir(), vms_dir(), templates=False)
    ready: dict[str, list[float]] = {"new": [], "cold": []}
    first: dict[str, list[float]] = {"new": [], "cold": []}
    await _first_step(resumed)  # the template, the page cache
    for _ in range(rounds):
        for name, provider in (("new", resumed), ("cold", booted)):
            if name == "new" or len(ready["cold"]) < max(rounds // 3, 3):
                allocation, until_step = await _first_step(provider)
                ready[name].append(allocation.duration * 1000)
                first[name].append(until_step * 1000)
    return [
        Row(
            "a new VM, to its agent's answer",
            ready["new"],
            "cold boot",
            ready["cold"],
            "≥ 30 times",
            inverse=True,
        ),
        Row(
            "a new VM, to the end of its first step",
            first["new"],
            "cold boot",
            first["cold"],
            "—",
            inverse=True,
        ),
    ]


async def _first_step(provider: QemuProvider) -> tuple[Allocation, float]:
    started = time.perf_counter()
    allocation = await provider.allocate(VmSpec())
    try:
        async with await allocation.vm.guest.open_job(JobRootSpec("bench")) as root:
            process = await root.exec(ExecSpec(["bash", "-c", "true"], {"PATH": PATH}))
            await process.wait()
            return allocation, time.perf_counter() - started
    finally:
        await provider.release(allocation.vm)


# --- the pool


def pool(rounds: int) -> list[Row]:
    """A VM that is ready, one that is reset, and what those that wait take."""
    sys.path.insert(0, str(HERE.parent))
    from bench import pool as measure

    reset, resumed = (_in_ms(times) for times in asyncio.run(measure.resets(rounds)))
    hits = asyncio.run(measure.hits(rounds * 10))
    p99 = f"p99 {hits.p99 * 1000:.2f}"
    fresh, warm = asyncio.run(measure.memory(warm=False)), asyncio.run(measure.memory(warm=True))
    limit = [40.0]
    return [
        Row("reset of a used VM", reset, "a new VM", resumed, "≤ 1.5"),
        Row("a warm VM", _in_ms(hits.waited), "a new VM", resumed, "≤ 2 ms, p99 ≤ 10 ms", beyond=p99),
        Row("one of ten idle VMs of 1 GiB", fresh, "what is hoped for", limit, "≤ 1", unit="MB"),
        Row("the same, once a program has run in each", warm, "what is hoped for", limit, "—", unit="MB"),
    ]


# --- snapshots


def snapshots(rounds: int) -> list[Row]:
    """Keeping a VM and putting it back, against QEMU's own migration to a file; fifty snapshots in a row."""
    sys.path.insert(0, str(HERE.parent))
    from bench import snapshots as measure

    kept, row = measure.measure(max(rounds // 2, 3))
    first, last = row.paused[:10], row.paused[-10:]
    sizes = [[size / 1e6 for size in part] for part in (row.size[:10], row.size[-10:])]
    return [
        Row("pause for a snapshot, 25 MiB changed", _in_ms(kept.paused), "plain migration", _in_ms(kept.plain_paused),
            "≥ 6 times", inverse=True),
        Row("back, to the first answer", _in_ms(kept.back), "plain migration", _in_ms(kept.plain_back),
            "≥ 8 times", inverse=True),
        Row("pause for the last ten of fifty snapshots", _in_ms(last), "the first ten", _in_ms(first), "—"),
        Row("size of the last ten of fifty snapshots", sizes[1], "the first ten", sizes[0], "—", unit="MB"),
    ]  # fmt: skip


def _in_ms(times: list[float]) -> list[float]:
    return [took * 1000 for took in times]


# --- a hundred steps against the same commands in a loop inside the guest

_STEPS = 100
_LOOP = """\
cat > /tmp/step.sh <<'EOF'
true
EOF
for i in $(seq 5); do bash -e /tmp/step.sh; done
start=$(date +%s%N)
for i in $(seq 100); do bash -e /tmp/step.sh; done
echo "took=$(( ($(date +%s%N) - start) / 1000 ))" >> "$GITHUB_OUTPUT"
"""


def hundred_steps(rounds: int) -> list[Row]:
    """One workflow in one VM: first the loop, timed in the guest, then a hundred steps, timed by their events."""
    loops, steps = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [{"id": "loop", "run": _LOOP}, *({"run": "true"} for _ in range(_STEPS))]
        _workflow(folder, {"on": "push", "jobs": {"a": {"runs-on": "ubuntu-latest", "steps": made}}})
        for _ in range(max(rounds // 3, 3)):
            events = _events(folder)
            finished = [e for e in events if e["type"] == "step.finished"]
            loops.append(int(finished[0]["outputs"]["took"]) / 1000)
            steps.append((finished[-1]["at"] - finished[0]["at"]) * 1000)
    return [Row("100 steps", steps, "100 commands looped in the guest", loops, "≤ 1.25")]


# --- five echo steps against act in host mode


def act(rounds: int) -> list[Row]:
    """The whole command, process start to end, interleaved with act's: with a daemon's VM, and with one of its own."""
    found = BIN / "act"
    if not found.exists():
        print("  act is not installed: make bench installs it")
        return []
    with tempfile.TemporaryDirectory() as name, _daemon(Path(name)) as lent:
        folder = Path(name, "repository")
        made = [{"run": f"echo step {n}"} for n in range(1, 6)]
        _workflow(folder, {"on": "push", "jobs": {"a": {"runs-on": "ubuntu-latest", "steps": made}}})
        _workflow(
            folder, {"on": "push", "jobs": {"a": {"runs-on": "ubuntu-latest", "steps": _STARTS}}}, "starts"
        )
        subprocess.run(["git", "init", "-q", str(folder)], check=True, timeout=COMMAND_DEADLINE)
        cloche = str(BIN / "cloche")
        commands: dict[str, tuple[list[str], dict[str, str]]] = {
            "act": (
                [str(found), "push", "-P", "ubuntu-latest=-self-hosted", "-W", ".github/workflows/bench.yml"],
                {},
            ),
            "sandbox": ([cloche, "run", "--vm", "sandbox", "bench"], _ALONE),
            "qemu": ([cloche, "run", "--vm", "qemu", "bench"], _ALONE),
            "lent sandbox": ([cloche, "run", "--vm", "sandbox", "bench"], lent),
            "lent qemu": ([cloche, "run", "--vm", "qemu", "bench"], lent),
        }
        times: dict[str, list[float]] = {key: [] for key in (*commands, "starts")}
        for number in range(rounds + 1):
            for key, (command, environment) in commands.items():
                _until_ready(lent)
                took = _timed(command, folder, environment)
                if number:  # the first round warms caches
                    times[key].append(took)
            if number:
                finished = [e for e in _events(folder, "starts") if e["type"] == "step.finished"]
                times["starts"].append(int(finished[0]["outputs"]["took"]) / 1000)
    starts = statistics.median(times["starts"])
    without = [took - starts for took in times["lent qemu"]]
    return [
        Row("five echo steps, daemon, sandbox", times["lent sandbox"], "act, host mode", times["act"], "≤ 1.0"),
        Row(
            f"five echo steps, daemon, QEMU, less five bash starts in the guest ({starts:.0f} ms)",
            without, "act, host mode", times["act"], "≤ 1.0",
        ),
        Row("five echo steps, sandbox", times["sandbox"], "act, host mode", times["act"], "≤ 2.0"),
        Row("five echo steps, QEMU", times["qemu"], "act, host mode", times["act"], "—"),
    ]  # fmt: skip


_ALONE = {"CLOCHE_NO_DAEMON": "1"}
_STARTS = [
    {
        "id": "starts",
        "run": "echo true > /tmp/step.sh; for i in 1 2 3 4 5; do bash -e /tmp/step.sh; done; start=$(date +%s%N)\n"
        "for i in 1 2 3 4 5; do bash -e /tmp/step.sh; done\n"
        'echo "took=$(( ($(date +%s%N) - start) / 1000 ))" >> "$GITHUB_OUTPUT"',
    }
]


@contextlib.contextmanager
def _daemon(folder: Path) -> Iterator[dict[str, str]]:
    """A daemon of the benchmark's own, warm for both providers; the environment of its clients."""
    environment = {"XDG_RUNTIME_DIR": str(folder / "run"), "XDG_STATE_HOME": str(folder / "state")}
    (folder / "run").mkdir(mode=0o700)
    _timed([str(BIN / "cloche"), "up"], folder, environment)
    try:
        yield environment
    finally:
        _timed([str(BIN / "cloche"), "down", "--now"], folder, environment)


def _until_ready(environment: dict[str, str]) -> None:
    """Wait until the daemon has recycled what the last run had."""
    deadline = time.monotonic() + COMMAND_DEADLINE
    while time.monotonic() < deadline:
        told = json.loads(_said([str(BIN / "cloche"), "status", "--output", "json"], Path.cwd(), environment))
        pools = [provider["pool"] for provider in told["providers"].values()]
        if all(pool["idle"] and not pool["resetting"] + pool["making"] + pool["ending"] for pool in pools):
            return
        time.sleep(0.02)
    raise SystemExit("the daemon does not come back to its target")


def _timed(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    started = time.perf_counter()
    _said(command, folder, environment)
    return (time.perf_counter() - started) * 1000


def _said(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    # A user's Python keeps what it compiled.
    usual = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    result = subprocess.run(
        command,
        cwd=folder,
        env={**usual, "ACT_DISABLE_VERSION_CHECK": "1", **environment},
        capture_output=True,
        text=True,
        timeout=COMMAND_DEADLINE,
        check=False,
    )
    if result.returncode:
        raise SystemExit(f"{command} failed:\n{result.stdout}\n{result.stderr}")
    return result.stdout


def _events(folder: Path, name: str = "bench") -> list[dict[str, Any]]:
    said = _said([str(BIN / "cloche"), "run", name, "--vm", "qemu", "--output", "jsonl"], folder, _ALONE)
    return [json.loads(line) for line in said.splitlines()]


def _workflow(folder: Path, content: dict[str, object], name: str = "bench") -> None:
    path = folder / ".github" / "workflows" / f"{name}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML


# --- telling


def _line(row: Row) -> str:
    ours, base = statistics.median(row.ours), statistics.median(row.baseline)
    told = (
        f"{row.name}: {_plain(ours)} {row.unit} {row.beyond}; {row.baseline_name}: {_plain(base)} {row.unit}"
    )
    return f"{told}; ratio {row.ratio:.2f} (target {row.target})"


_HEAD = """\
# What was measured

`make bench` on {date}, {rounds} rounds (a third of that for what takes long): medians, with the least and the most
in brackets. {machine}

Figures of one run are comparable with each other only; the ratio is what to remember. Where the baseline is to be
the slower, the ratio says how many times.

| what | ms | baseline | ms | ratio | hoped for |
|---|---|---|---|---|---|
"""


def _report(rows: list[Row], rounds: int) -> str:
    head = _HEAD.format(date=time.strftime("%Y-%m-%d"), rounds=rounds, machine=_machine())
    return head + "".join(
        f"| {_name(row)} | {_spread(row.ours)} | {row.baseline_name} | {_spread(row.baseline)} "
        f"| {row.ratio:.2f} | {row.target} |\n"
        for row in rows
    )


def _name(row: Row) -> str:
    more = ", ".join(part for part in (row.unit if row.unit != "ms" else "", row.beyond) if part)
    return f"{row.name} ({more})" if more else row.name


def _spread(values: list[float]) -> str:
    return f"{_plain(statistics.median(values))} ({_plain(min(values))} to {_plain(max(values))})"


def _plain(value: float) -> str:
    return f"{value:.2f}" if value < _SMALL else f"{value:.0f}"


def _machine() -> str:
    qemu = shutil.which("qemu-system-x86_64")
    version = subprocess.run(
        [str(qemu), "--version"], capture_output=True, text=True, timeout=20, check=False
    ).stdout
    first = version.splitlines()[0] if version else "no QEMU"
    load = os.getloadavg()[0]
    system = f"{os.cpu_count()} cores, {platform.machine()}, Linux {platform.release()}"
    return f"{system}, Python {platform.python_version()}, {first}, load {load:.1f} at the end."


BENCHES: dict[str, Callable[[int], list[Row]]] = {
    "new-vm": new_vm,
    "pool": pool,
    "snapshots": snapshots,
    "steps": hundred_steps,
    "act": act,
}

if __name__ == "__main__":
    main()
