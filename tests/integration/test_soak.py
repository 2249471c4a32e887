"""Question after question over real sockets: what is counted never exceeds the budget."""

import gc
import weakref
from typing import Any

import pytest

from fedattn.core.errors import NodeBusyError
from services.participant.kv_cache import KvCache
from services.participant.memory import MemoryBudget
from services.participant.publication import Publication
from tests.harness.nats import until
from tests.harness.networks import Network, ask, failure

ROOM = 260_000
"""Bytes; the publisher's part of one session takes 200,000."""


def bound(network: Network, room: int) -> list[MemoryBudget]:
    """Give every node so much for sessions and caches."""
    for node in network.nodes.values():
        node.memory = MemoryBudget(room)
        for name in ("frames", "rows", "states"):
            setattr(node, name, KvCache(room // 2, budget=node.memory))
    return [node.memory for node in network.nodes.values()]


async def test_counted_bytes_stay_within_the_budget(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    budgets = bound(network, ROOM)
    seen: list[int] = []
    take = MemoryBudget.take

    def watched(budget: MemoryBudget, size: int) -> object:
        release = take(budget, size)
        seen.append(budget.claimed + budget.kept)
        return release

    monkeypatch.setattr(MemoryBudget, "take", watched)
    for number in range(12):
        plan = ("all", "uniform:2", "1,3", "2-4")[number % 4]
        await ask(network, question=f"w{number} w{number + 1}", plan=plan)
        seen += [budget.claimed + budget.kept for budget in budgets]
    assert max(seen) <= ROOM
    assert any(budget.kept for budget in budgets)
    assert not any(budget.claimed for budget in budgets)


async def test_nothing_of_a_query_waits_for_the_garbage_collector(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a session held would count, and be there, until one comes by."""
    seen: list[weakref.ref[object]] = []
    begin = Publication.__init__

    def begun(self: Publication, *arguments: Any) -> None:
        begin(self, *arguments)
        seen.extend(map(weakref.ref, (self, self._session, self._answering)))

    monkeypatch.setattr(Publication, "__init__", begun)
    gc.disable()
    try:
        for number in range(3):
            await ask(network, question=f"w{number} w{number + 1}")
        await until(lambda: not any(one() for one in seen))
    finally:
        gc.enable()
    assert len(seen) == 9


async def test_a_session_that_does_not_fit_is_refused_by_the_publisher(network: Network) -> None:
    bound(network, ROOM)
    network.nodes["publisher"].memory = MemoryBudget(1000)
    error = await failure(network)
    assert error.code == NodeBusyError.code
    assert "--memory" in str(error)
