"""A query's last moments at the gateway."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from structlog.testing import capture_logs

from fedattn.core.address import SocketPath
from fedattn.core.errors import (
    AggregatorUnavailableError,
    FedAttnError,
    GatewayUnavailableError,
    PublisherUnavailableError,
)
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.v1 import participant_pb2
from gateway import query_call, stillness
from gateway.metrics import GatewayMetrics
from gateway.query_call import QueryCall, planned_bytes_of
from gateway.stillness import Stillness
from gateway.way import Way
from tests.harness.gateway import opened, result

END = object()


class FakeRpc:
    """Gives out events; remembers what was asked of it. It hangs where there are no more."""

    def __init__(self, *events: Any) -> None:
        self._events = list(events)
        self.calls: list[str] = []

    async def read(self) -> Any:
        self.calls.append("read")
        event = self._events.pop(0) if self._events else await asyncio.Future()
        if isinstance(event, Exception):
            raise event
        return event

    def cancel(self) -> None:
        self.calls.append("cancel")


class FakeAggregator:
    """Says that it lives, or does not answer."""

    def __init__(self, lost: FedAttnError | None = None) -> None:
        self.address, self._lost = "agg:1", lost

    async def check_alive(self) -> None:
        if self._lost is not None:
            raise self._lost


def call_of(
    rpc: FakeRpc,
    on_close: Callable[[QueryCall], None] = lambda _: None,
    lost: FedAttnError | None = None,
) -> QueryCall:
    fake: Any = rpc
    aggregator = cast("AggregatorClient", FakeAggregator(lost))
    way = Way("publisher", SocketPath(Path("nowhere")), aggregator, None)
    return QueryCall(fake, way, on_close, GatewayMetrics())


def broken() -> grpc.aio.AioRpcError:
    """What gRPC raises once pings find nobody."""
    none = grpc.aio.Metadata()
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, none, none, "ping timeout")


def last() -> participant_pb2.QueryEvent:
    return participant_pb2.QueryEvent(result=result())


async def result_of(call: QueryCall) -> participant_pb2.QueryResult:
    *_, event = [event async for event in call.events()]
    return event.result


async def test_the_end_of_the_stream_is_read_before_the_call_is_cancelled() -> None:
    rpc = FakeRpc(opened(), last(), END)
    call = call_of(rpc)
    await result_of(call)
    call.close()
    assert rpc.calls == ["read", "read", "read", "cancel"]


async def test_a_place_is_free_once_the_publisher_is_done_whoever_reads() -> None:
    freed: list[QueryCall] = []
    call = call_of(FakeRpc(opened(), last(), END), freed.append)
    events = call.events()
    await anext(events)
    assert freed == []
    await anext(events)  # the client gets it now, and need not take it
    assert freed == [call]
    assert call.kv_bytes == 120
    call.close()
    assert freed == [call]


async def test_a_publisher_that_does_not_end_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(query_call, "END_TIMEOUT_S", 0.01)
    assert await result_of(call_of(FakeRpc(last()))) == result()


async def test_signs_of_life_are_no_events() -> None:
    alive = participant_pb2.QueryEvent(alive=participant_pb2.Alive())
    call = call_of(FakeRpc(alive, opened(), alive, alive, last(), END))
    assert [event.WhichOneof("body") async for event in call.events()] == ["opened", "result"]


@pytest.mark.parametrize("event", [None, broken()], ids=["silent", "broken"])
async def test_who_is_lost_is_named_publisher_or_the_aggregator_on_the_way(
    event: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_call, "SILENCE_S", 0.01)
    events = [] if event is None else [event]
    with pytest.raises(PublisherUnavailableError, match="publisher publisher"):
        await call_of(FakeRpc(*events)).wait_started()
    lost = AggregatorUnavailableError("the aggregator at agg:1 did not answer")
    with pytest.raises(AggregatorUnavailableError, match="agg:1"):
        await call_of(FakeRpc(*events), lost=lost).wait_started()


async def test_a_gateway_that_stood_still_blames_itself() -> None:
    moments = iter([0.0, 21.0])  # a look that was due after a second came 20 s late
    call = call_of(FakeRpc(broken()))
    call._stillness = Stillness(lambda: next(moments))
    with pytest.raises(GatewayUnavailableError, match="the gateway stood still for 20 s"):
        await call.wait_started()


async def test_time_for_which_the_gateway_stood_still_is_no_silence_of_the_publisher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stillness, "_LOOK_S", 0.001)
    moments = iter([0.0, 21.0, *map(float, range(22, 40))])
    rpc = FakeRpc()
    reading = asyncio.create_task(Stillness(lambda: next(moments)).wait(rpc.read(), 0.004))
    with pytest.raises(TimeoutError):
        await reading
    assert next(moments) == 28.0  # four looks, though the first was enough by the clock


async def test_each_query_leaves_one_entry_without_text() -> None:
    answered, cancelled = call_of(FakeRpc(opened(), last(), END)), call_of(FakeRpc(opened()))
    with capture_logs() as entries:
        await result_of(answered)
        await cancelled.wait_started()
        for call in (answered, cancelled, answered):
            call.close()
    session = opened().opened.terms.session_id
    first, second = entries
    assert first.pop("seconds") >= 0
    assert first == {
        "event": "query_ended",
        "log_level": "info",
        "session": session,
        "publisher": "publisher",
        "outcome": "answered",
        "tokens": 5,
        "kv_bytes": 120,
    }
    assert (second["outcome"], second["session"]) == ("cancelled", session)


async def test_who_leaves_before_the_report_pays_for_the_plan() -> None:
    event = opened()
    shape, (node_a, _) = event.opened.terms.shape, event.opened.terms.members
    shape.num_kv_heads, shape.head_dim = 3, 64
    call = call_of(FakeRpc(event))
    assert call.kv_bytes == 0
    await call.wait_started()
    call.close()
    assert call.kv_bytes == 3 * 2 * (2 * 3 * 64) * 2  # rows, layers of the publisher, numbers
    node_a.is_cached_by_publisher = True
    assert planned_bytes_of(event.opened.terms) == 0
