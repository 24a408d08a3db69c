"""The metrics and what moves them: records of pool and session manager, and events of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from cloche.events import RunFinished
from cloche.metrics.sessions import MeasuredSessions
from cloche.pool.events import AllocationFailed, MakingFailed, VmEnded, VmHandedOut, VmMade, VmReset
from cloche.session import events as session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    from cloche.events import Conclusion, Event
    from cloche.metrics.sessions import Sessions
    from cloche.pool.events import PoolEvent, PoolStats
    from cloche.session.collect import Leftovers
    from cloche.session.events import SessionEvent

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""What a scrape is answered with: the text format, version and all."""
MAX_LABELS = 50
"""Different values of a label that comes from outside (images): those beyond count as ``other``."""
_MAX_LABEL = 100
_READY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_LONG = (1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600)
_STATES = ("idle", "active", "resetting", "making", "ending")
_BAD_ENDS = ("dirty", "unhealthy", "lost", "reset failed")

disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each, that nobody asked for


class Metrics:
    """All metrics of one process, in a registry of their own.

    Give ``pool_event`` to pools and ``session_event`` to session managers as their observers, and the object itself
    to executors as a subscriber. It never raises and never blocks.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._images: set[str] = set()
        self._pools = _Pools()
        self.registry.register(self._pools)
        self._allocation_seconds = self._histogram(
            "vm_allocation_duration_seconds",
            "Time until a session had its VM.",
            ("image", "provider", "source"),
            _READY,
        )
        self._allocations = self._counter(
            "vm_allocation", "VMs that sessions asked for, by result and source.", ("result", "source")
        )
        self._active = Gauge("vm_active_sessions", "Sessions that have a VM now.", registry=self.registry)
        self._session_seconds = self._histogram(
            "vm_session_duration_seconds", "How long sessions had their VMs.", ("provider",), _LONG
        )
        self._waits = self._histogram(
            "vm_session_wait_seconds", "How long sessions waited for a place below the limit.", (), _LONG
        )
        self._refusals = self._counter("vm_session_refusals", "Sessions that the limit refused.", ())
        self._stale = self._counter("vm_stale_sessions", "Sessions released because nobody used them.", ())
        self._runs = self._histogram(
            "workflow_execution_duration_seconds",
            "How long workflows took, from their start to their end.",
            ("conclusion",),
            _LONG,
        )
        self._hits = self._counter("vm_pool_hits", "Allocations that found a VM waiting.", ("provider",))
        self._misses = self._counter(
            "vm_pool_misses", "Allocations that had to wait for a VM.", ("provider",)
        )
        self._pool_failures = self._counter(
            "vm_pool_allocation_failures", "Allocations that a pool could not serve.", ("provider", "reason")
        )
        self._makes = self._histogram(
            "vm_make_duration_seconds",
            "How long providers took to make VMs: restored from a template, or booted.",
            ("provider", "source"),
            _READY,
        )
        self._resets = self._histogram(
            "vm_reset_duration_seconds", "How long providers took to put VMs back.", ("provider",), _READY
        )
        self._ended = self._counter("vm_ended", "VMs that a pool ended, by why.", ("provider", "reason"))
        self._failures = self._counter(
            "vm_failures", "VMs that went wrong: not made, or ended for a bad reason.", ("provider", "reason")
        )
        self._orphans = self._counter(
            "vm_orphans_collected", "What killed processes left and others cleared.", ("kind",)
        )

    def _histogram(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def serve(self, host: str, port: int) -> AbstractAsyncContextManager[int]:
        """Serve it over HTTP for as long as the block lasts; see ``cloche.metrics.serving.serve``."""
        from cloche.metrics.serving import serve

        return serve(self, host, port)

    def render(self) -> bytes:
        """Return all of it in the Prometheus text format."""
        return generate_latest(self.registry)

    # What moves them

    def watch_pool(self, provider: str, stats: Callable[[], PoolStats]) -> None:
        """Ask a pool for its sizes whenever somebody looks; again for the same provider replaces the pool."""
        self._pools.stats[provider] = stats

    def __call__(self, event: Event) -> None:
        """Take an event of a run."""
        if isinstance(event, RunFinished):
            self.ran(event.conclusion, event.duration_ms / 1000)

    def ran(self, conclusion: Conclusion, seconds: float) -> None:
        """Take the end of a run."""
        self._runs.labels(conclusion).observe(seconds)

    def pool_event(self, event: PoolEvent) -> None:
        """Take what a pool tells its observer."""
        match event:
            case VmHandedOut():
                (self._hits if event.hit else self._misses).labels(event.provider).inc()
            case AllocationFailed():
                self._pool_failures.labels(event.provider, event.reason).inc()
            case VmMade():
                self._makes.labels(event.provider, event.source).observe(event.seconds)
            case MakingFailed():
                self._failures.labels(event.provider, "making_failed").inc()
            case VmReset():
                self._resets.labels(event.provider).observe(event.seconds)
            case VmEnded():
                reason = event.why.replace(" ", "_")
                self._ended.labels(event.provider, reason).inc()
                if event.why in _BAD_ENDS:
                    self._failures.labels(event.provider, reason).inc()

    def session_event(self, event: SessionEvent) -> None:
        """Take what a session manager tells its observer."""
        match event:
            case session.Created():
                labels = (self._image(event.image), event.provider, event.source)
                self._allocation_seconds.labels(*labels).observe(event.seconds)
                self._allocations.labels("success", event.source).inc()
                self._waits.observe(event.waited)
            case session.Failed():
                self._allocations.labels("failure", "none").inc()
            case session.Refused():
                self._refusals.inc()
            case session.Stale():
                self._stale.inc()
                return
            case session.Released():
                self._session_seconds.labels(event.provider).observe(event.seconds)
                if not event.clean:
                    self._failures.labels(event.provider, "release_failed").inc()
        self._active.set(event.active)

    def measured(self, sessions: Sessions) -> MeasuredSessions:
        """Return ``sessions`` with a look at each: for who has no manager to observe."""
        return MeasuredSessions(sessions, self.session_event)

    def collected(self, left: Leftovers) -> None:
        """Count what was cleared of what killed processes left."""
        self._orphans.labels("session").inc(len(left.sessions))
        self._orphans.labels("vm").inc(sum(vm.problem is None for vm in left.vms))

    def _image(self, name: str) -> str:
        """Bound what a label costs: names of images may come from anywhere."""
        name = name[:_MAX_LABEL]
        if name not in self._images and len(self._images) >= MAX_LABELS:
            return "other"
        self._images.add(name)
        return name


class _Pools(Collector):
    """Sizes of pools, asked for when somebody looks."""

    def __init__(self) -> None:
        self.stats: dict[str, Callable[[], PoolStats]] = {}

    def describe(self) -> Iterator[GaugeMetricFamily]:
        yield from self._families()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        vms, utilization = self._families()
        for provider, ask in self.stats.items():
            stats = ask()
            for state in _STATES:
                vms.add_metric([provider, state], getattr(stats, state))
            utilization.add_metric([provider], stats.utilization)
        yield from (vms, utilization)

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily("vm_pool_vms", "VMs of a pool, by state.", labels=["provider", "state"]),
            GaugeMetricFamily(
                "vm_pool_utilization", "Share of a pool's VMs that are in use.", labels=["provider"]
            ),
        )
