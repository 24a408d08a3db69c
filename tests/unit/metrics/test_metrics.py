"""What moves the metrics, and that the page and the dashboard name those there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

from cloche.events import RunFinished
from cloche.metrics import Metrics
from cloche.pool.events import (
    AllocationFailed,
    MakingFailed,
    PoolStats,
    VmEnded,
    VmHandedOut,
    VmMade,
    VmReset,
)
from cloche.session.collect import Leftovers
from cloche.session.events import Created, Failed, Refused, Released, Stale
from cloche.session.registry import ActiveSession
from cloche.vm.leases import Collected

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/metrics.md").read_text("utf-8")
DASHBOARD = json.loads((ROOT / "examples/grafana/cloche.json").read_text("utf-8"))


def created(image: str = "default", active: int = 1) -> Created:
    return Created("sess-1", "vm-1", "qemu", image, "warm", seconds=0.002, waited=0.5, active=active)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_session_from_its_vm_to_its_end() -> None:
    metrics = Metrics()
    metrics.session_event(created())
    labels = {"image": "default", "provider": "qemu", "source": "warm"}
    assert value(metrics, "vm_allocation_duration_seconds_count", **labels) == 1
    assert value(metrics, "vm_allocation_duration_seconds_bucket", **labels, le="0.0025") == 1
    assert value(metrics, "vm_allocation_duration_seconds_bucket", **labels, le="0.001") == 0
    assert value(metrics, "vm_allocation_total", result="success", source="warm") == 1
    assert value(metrics, "vm_active_sessions") == 1
    assert value(metrics, "vm_session_wait_seconds_sum") == 0.5

    metrics.session_event(Stale("sess-1", "vm-1", 3600.0))
    assert value(metrics, "vm_active_sessions") == 1
    metrics.session_event(Released("sess-1", "vm-1", "qemu", 42.0, clean=False, active=0))
    assert value(metrics, "vm_active_sessions") == 0
    assert value(metrics, "vm_stale_sessions_total") == 1
    assert value(metrics, "vm_session_duration_seconds_sum", provider="qemu") == 42
    assert value(metrics, "vm_failures_total", provider="qemu", reason="release_failed") == 1


def test_sessions_that_never_were() -> None:
    metrics = Metrics()
    metrics.session_event(Refused(2, 0.0, active=2))
    metrics.session_event(Failed("ProviderError", "qemu", "default", 3.0, active=2))
    assert value(metrics, "vm_session_refusals_total") == 1
    assert value(metrics, "vm_allocation_total", result="failure", source="none") == 1
    assert value(metrics, "vm_active_sessions") == 2


def test_a_pool() -> None:
    metrics = Metrics()
    for event in (
        VmMade("vm-1", "qemu", "default", "restored", 0.2),
        VmHandedOut("vm-1", "qemu", "default", "warm", 0.001, hit=True),
        VmReset("vm-1", "qemu", "default", 0.3),
        VmHandedOut("vm-1", "qemu", "default", "restored", 0.4, hit=False),
        AllocationFailed("qemu", "default", "timeout", 120.0),
        MakingFailed("qemu", "default", "no room", 1.0),
        VmEnded("vm-1", "qemu", "reset failed", "the guest is gone"),
        VmEnded("vm-2", "qemu", "age"),
    ):
        metrics.pool_event(event)
    assert value(metrics, "vm_make_duration_seconds_sum", provider="qemu", source="restored") == 0.2
    assert value(metrics, "vm_reset_duration_seconds_sum", provider="qemu") == 0.3
    assert value(metrics, "vm_pool_hits_total", provider="qemu") == 1
    assert value(metrics, "vm_pool_misses_total", provider="qemu") == 1
    assert value(metrics, "vm_pool_allocation_failures_total", provider="qemu", reason="timeout") == 1
    assert value(metrics, "vm_ended_total", provider="qemu", reason="age") == 1
    assert value(metrics, "vm_failures_total", provider="qemu", reason="age") is None
    assert value(metrics, "vm_failures_total", provider="qemu", reason="reset_failed") == 1
    assert value(metrics, "vm_failures_total", provider="qemu", reason="making_failed") == 1


def test_a_pools_sizes_are_those_of_the_moment() -> None:
    metrics = Metrics()
    stats = [PoolStats(5, 3, active=2, idle=1, resetting=1)]
    metrics.watch_pool("qemu", lambda: stats[0])
    assert value(metrics, "vm_pool_vms", provider="qemu", state="idle") == 1
    assert value(metrics, "vm_pool_utilization", provider="qemu") == 0.5
    stats[0] = PoolStats(5, 5, active=0, idle=3)
    assert value(metrics, "vm_pool_vms", provider="qemu", state="idle") == 3
    assert value(metrics, "vm_pool_vms", provider="qemu", state="active") == 0
    assert value(metrics, "vm_pool_utilization", provider="qemu") == 0


def test_runs_and_orphans() -> None:
    metrics = Metrics()
    metrics(RunFinished(run_id="run-1", at=0.0, conclusion="failure", duration_ms=2500))
    assert value(metrics, "workflow_execution_duration_seconds_sum", conclusion="failure") == 2.5
    session = ActiveSession("sess-1", "CI", 1, 0.0)
    metrics.collected(Leftovers((session,), (Collected("vm-1"), Collected("vm-2", problem="busy"))))
    assert value(metrics, "vm_orphans_collected_total", kind="session") == 1
    assert value(metrics, "vm_orphans_collected_total", kind="vm") == 1


def test_names_of_images_cannot_fill_the_memory() -> None:
    metrics = Metrics()
    for number in range(1000):
        metrics.session_event(created(f"image-{number}" + "x" * 1000))
    text = metrics.render().decode()
    images = set(re.findall(r'image="([^"]*)"', text))
    assert len(images) == 51
    assert max(map(len, images)) <= 100
    labels = {"image": "other", "provider": "qemu", "source": "warm"}
    assert value(metrics, "vm_allocation_duration_seconds_count", **labels) == 950


def registered() -> dict[str, tuple[str, tuple[str, ...]]]:
    """The kind and labels of each metric, as Prometheus sees them once everything has happened."""
    metrics = Metrics()
    metrics.watch_pool("qemu", lambda: PoolStats(0, 0, 0))
    found = {}
    for family in metrics.registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        own = getattr(metrics.registry._names_to_collectors[family.name], "_labelnames", None)
        sampled = {label for sample in family.samples for label in sample.labels}
        found[name] = (family.type, tuple(own) if own is not None else tuple(sorted(sampled)))
    return found


def test_the_page_names_every_metric_with_its_kind_and_labels() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?)\| .+ \|$", PAGE, re.MULTILINE)
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert told == registered()


def test_the_page_names_every_label() -> None:
    table = PAGE.partition("| label | values |")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    assert told == {label for _, labels in registered().values() for label in labels}


def expressions() -> list[str]:
    promql = PAGE.partition("```promql\n")[2].partition("```")[0].splitlines()
    return [*promql, *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"])]


def test_expressions_name_only_metrics_and_labels_that_exist() -> None:
    known = registered()
    suffixed = {
        name + end
        for name, (kind, _) in known.items()
        if kind == "histogram"
        for end in ("_bucket", "_count")
    }
    for expression in expressions():
        named = set(re.findall(r"\b(?:vm|workflow)_\w+", expression))
        assert named <= known.keys() | suffixed, expression
        assert named, expression
        base = [re.sub(r"_(bucket|count)$", "", name) if name in suffixed else name for name in named]
        allowed = {"le", *(label for name in base for label in known[name][1])}
        grouped = {
            word for group in re.findall(r"by \(([^)]*)\)", expression) for word in re.findall(r"\w+", group)
        }
        assert grouped <= allowed, expression


def test_the_dashboard_is_whole() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    shown = {name for expression in expressions() for name in registered() if name in expression}
    assert shown == set(registered()), "every metric has its place"
    for panel in panels:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        legends = {
            word for target in panel["targets"] for word in re.findall(r"{{(\w+)}}", target["legendFormat"])
        }
        grouped = {
            word for target in panel["targets"] for word in re.findall(r"by \(([^)]*)\)", target["expr"])
        }
        assert legends <= {word for group in grouped for word in re.findall(r"\w+", group)}
