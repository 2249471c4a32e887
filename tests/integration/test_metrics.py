"""What the services tell Prometheus."""

import math
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError, NodeBusyError
from fedattn.core.sampling import MAX_NEW_TOKENS
from fedattn.model.loading import LoadedModel
from fedattn.runtime.metrics import new_registry, serve_metrics
from fedattn.wire.timeline import MAX_TIME_S
from fedattn.wire.v1 import participant_pb2
from gateway.metrics import GatewayMetrics
from services.aggregator.settings import AggregatorSettings
from tests.harness.gateway import running
from tests.harness.networks import NUM_NEW_TOKENS, ask, failure, running_network
from tests.harness.raw import open_request, raw_node
from tests.harness.runners import running_aggregator

ANY_PORT = HostPort("127.0.0.1", 0)
CAUSES = ("open", "rows", "room")


async def busy(request: participant_pb2.QueryRequest) -> AsyncIterator[participant_pb2.QueryEvent]:
    if request.question:
        raise NodeBusyError("full")
    yield participant_pb2.QueryEvent()


async def test_gateway_counts_answers_and_failures_by_code() -> None:
    registry = CollectorRegistry()
    async with running(registry=registry) as gateway:
        await gateway.ask()
        await gateway.ask(publisher="nobody")
        gateway.participant.script = busy
        await gateway.ask(max_wait_s=0)
    counted = {
        outcome: registry.get_sample_value("fedattn_gateway_queries_total", {"outcome": outcome})
        for outcome in ("answered", "unknown_participant", "node_busy")
    }
    assert counted == {"answered": 1, "unknown_participant": 1, "node_busy": 1}
    assert registry.get_sample_value("fedattn_gateway_query_duration_seconds_count") == 1
    assert registry.get_sample_value("fedattn_gateway_time_to_first_token_seconds_sum") == 0.75
    assert registry.get_sample_value("fedattn_gateway_output_tokens_total") == 5
    assert registry.get_sample_value("fedattn_gateway_time_per_output_token_seconds_sum") == 0.5
    assert registry.get_sample_value("fedattn_gateway_queries_running") == 0


def test_no_publisher_can_spoil_the_sums_of_a_gateway() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    for told in (math.nan, -1.0, -math.inf, math.inf):
        result = participant_pb2.QueryResult(
            num_tokens=2**32 - 1, time_to_first_token_s=told, decode_s=told
        )
        metrics.answer(result, 1.0)
    name = "fedattn_gateway_time_to_first_token_seconds_sum"
    assert registry.get_sample_value(name) == MAX_TIME_S
    assert registry.get_sample_value("fedattn_gateway_output_tokens_total") == 4 * MAX_NEW_TOKENS


async def test_a_request_that_does_not_even_parse_counts_as_refused() -> None:
    registry = CollectorRegistry()
    async with (
        running_aggregator(registry=registry) as address,
        raw_node(address, "publisher") as publisher,
    ):
        request = open_request(node_token=publisher.token, contributors=["a", "a"])
        with pytest.raises(grpc.aio.AioRpcError, match="named twice"):
            await publisher.stub.OpenSession(request)
    refused = registry.get_sample_value(
        "fedattn_aggregator_sessions_refused_total", {"code": "invalid_request"}
    )
    assert refused == 1


async def test_a_session_beyond_the_limit_counts_as_refused() -> None:
    registry = CollectorRegistry()
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0, max_sessions=1)
    async with (
        running_aggregator(settings, registry=registry) as address,
        raw_node(address, "a") as a,
        raw_node(address, "publisher") as publisher,
    ):
        request = open_request(node_token=publisher.token)
        opening = publisher.stub.OpenSession(request)
        await a.commands.get()
        with pytest.raises(
            grpc.aio.AioRpcError, match="places for sessions of this aggregator are taken"
        ):
            await publisher.stub.OpenSession(request)
        opening.cancel()
    assert (
        registry.get_sample_value(
            "fedattn_aggregator_sessions_refused_total", {"code": "node_busy"}
        )
        == 1
    )


async def test_network_counts_sessions_bytes_and_tokens(model: LoadedModel, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    async with running_network(model, tmp_path, registry=registry) as network:
        events = await ask(network)
        await failure(network, contributors=["nobody"])
        sent = sum(
            layer.up for member in events[-1].result.report.members for layer in member.layers
        )
        for node in network.nodes.values():
            await node.admission.wait_idle()
        joined = registry.get_sample_value("fedattn_aggregator_nodes_joined")
    read = registry.get_sample_value
    assert joined == 3
    assert read("fedattn_aggregator_sessions_total", {"outcome": "complete"}) == 1
    assert read("fedattn_aggregator_sessions_refused_total", {"code": "unknown_participant"}) == 1
    assert read("fedattn_aggregator_kv_bytes_total", {"direction": "up"}) == sent
    assert read("fedattn_aggregator_sessions_open") == 0
    contributor = network.nodes["node-0"].metrics.registry.get_sample_value
    complete = {"role": "contributor", "outcome": "complete"}
    assert contributor("fedattn_participant_sessions_total", complete) == 1
    publisher = network.nodes["publisher"].metrics.registry.get_sample_value
    refused = {"role": "publisher", "outcome": "unknown_participant"}
    assert publisher("fedattn_participant_sessions_total", refused) == 1
    assert publisher("fedattn_participant_output_tokens_total") == NUM_NEW_TOKENS
    assert publisher("fedattn_participant_time_to_first_token_seconds_count") == 1
    between = publisher("fedattn_participant_time_between_tokens_seconds_count")
    assert between == NUM_NEW_TOKENS - 1
    waits = [publisher("fedattn_participant_wait_seconds_count", {"cause": c}) for c in CAUSES]
    assert waits == [2, 1, 1]  # one of the two queries got no session
    assert read("fedattn_aggregator_wait_seconds_count", {"cause": "answers"}) == 2
    assert read("fedattn_aggregator_wait_seconds_count", {"cause": "rows"}) == 3


async def test_aggregator_tells_what_heartbeats_say(model: LoadedModel, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    settings = AggregatorSettings(listen="127.0.0.1:0", heartbeat_interval_s=0.05, grace_s=0)
    async with running_network(model, tmp_path, settings, registry) as network:
        while registry.get_sample_value("fedattn_node_pressure", {"node": "node-0"}) is None:
            await ask(network)
        free = registry.get_sample_value("fedattn_node_memory_free_ratio", {"node": "node-0"})
    assert free is not None
    assert 0 < free <= 1


def test_numbers_are_served_while_the_block_runs() -> None:
    with serve_metrics(ANY_PORT, new_registry("gateway")) as port:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'fedattn_build_info{service="gateway"' in text
    assert "process_resident_memory_bytes" in text
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_no_address_serves_nothing() -> None:
    with serve_metrics(None, CollectorRegistry()) as port:
        assert port == 0


@pytest.mark.parametrize("address", ["9100", ":9100", "127.0.0.1:many", "127.0.0.1:99999"])
def test_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"FEDATTN_AGGREGATOR_METRICS \(--metrics\): expected HOST:PORT"
    ):
        AggregatorSettings.load([f"--metrics={address}"])


def test_taken_port_is_refused() -> None:
    with (
        serve_metrics(ANY_PORT, CollectorRegistry()) as port,
        pytest.raises(ConfigurationError, match="cannot listen"),
        serve_metrics(ANY_PORT.with_port(port), CollectorRegistry()),
    ):
        pass


async def test_no_text_gets_into_the_numbers() -> None:
    registry = CollectorRegistry()
    async with running(registry=registry) as gateway:
        await gateway.ask()
    assert b"ward" not in generate_latest(registry).lower()
