from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from cloche.config import PoolSettings
from cloche.errors import UsageError
from cloche.pool import VmPool
from cloche.pool.strategies import STRATEGIES, WeightedRandom, find_strategy
from cloche.vm.fake import FakeProvider


@dataclass
class One:
    id: str
    uses: int = 0
    last_used: float = 0.0
    resume_time: float = 1.0
    exec_time: float = 1.0


A = One("a", last_used=3.0, resume_time=1.0, exec_time=3.0)
B = One("b", last_used=1.0, resume_time=2.0, exec_time=0.5)
C = One("c", last_used=2.0, resume_time=3.0, exec_time=2.0)
READY = [B, A, C]  # in the order they became so


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("first-available", "b"),
        ("round-robin", "a"),
        ("least-recently-used", "b"),
        ("most-recently-used", "a"),
        ("best-performance", "b"),
    ],
)
def test_what_a_strategy_chooses(name: str, chosen: str) -> None:
    assert find_strategy(name)().choose(READY).id == chosen


def test_one_never_used_is_the_least_recently_used() -> None:
    assert find_strategy("least-recently-used")().choose([A, One("new"), B]).id == "new"


def test_round_robin_goes_round_also_when_some_are_away() -> None:
    strategy = find_strategy("round-robin")()
    chosen = [strategy.choose(ready).id for ready in (READY, READY, READY, READY, [A, C], [A, B])]
    assert chosen == ["a", "b", "c", "a", "c", "a"]


def test_weighted_random_prefers_the_fast_and_forgets_nobody() -> None:
    strategy = WeightedRandom(random.Random(1))  # noqa: S311 - the same chances each time
    chosen = Counter(strategy.choose(READY).id for _ in range(1000))
    assert chosen["b"] > chosen["a"] > chosen["c"] > 0
    assert strategy.choose([One("unmeasured", resume_time=0.0, exec_time=0.0)]).id == "unmeasured"


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_copes_with_one(name: str) -> None:
    assert find_strategy(name)().choose([C]) is C


def test_an_unknown_strategy_is_refused_by_name_when_the_pool_is_made() -> None:
    with pytest.raises(UsageError, match="no pool strategy 'fastest'") as caught:
        VmPool(FakeProvider(), settings=PoolSettings(strategy="fastest"))
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in STRATEGIES)


class Newest:
    def choose(self, candidates: list[One]) -> One:
        return candidates[-1]


def test_other_packages_add_strategies(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("newest", f"{__name__}:Newest", "cloche.pool_strategies")
    monkeypatch.setattr(EntryPoint, "load", lambda _entry: Newest)
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group: EntryPoints([entry]).select(group=group)
    )
    assert find_strategy("newest")().choose(READY).id == "c"
    with pytest.raises(UsageError) as caught:
        find_strategy("other")
    assert "newest" in (caught.value.hint or "")
