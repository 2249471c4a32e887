"""Byte budgets over the wire: planned by the aggregator, kept, and told in the report."""

from dataclasses import replace

import pytest

from fedattn.core.codecs import codec_by_name
from fedattn.core.errors import InvalidRequestError
from fedattn.core.profile import CompressionWish
from fedattn.model.loading import LoadedModel
from fedattn.wire.convert import wish_to_wire
from fedattn.wire.v1 import participant_pb2, session_pb2
from tests.harness.networks import Network, ask, failure
from tests.harness.profiles import profile_of

BF16 = CompressionWish(codec=codec_by_name("bf16"), keep_ratio=1.0)
OPEN = wish_to_wire(CompressionWish())
CONTRIBUTORS = ("node-0", "node-1")
Members = dict[str, session_pb2.MemberReport]


async def members_of(network: Network, **changes: object) -> Members:
    result: participant_pb2.QueryResult = (await ask(network, **changes))[-1].result
    return {member.node_id: member for member in result.report.members}


def sent(members: Members) -> int:
    return sum(layer.up for member in members.values() for layer in member.layers)


def planned(members: Members) -> int:
    return sum(member.planned.bytes_up for member in members.values())


async def test_plan_of_a_raw_codec_is_exact_in_both_directions(network: Network) -> None:
    members = await members_of(network, compression=wish_to_wire(BF16))
    assert sent(members) == planned(members) > 0
    for member in members.values():
        assert member.planned.bytes_down == sum(layer.down for layer in member.layers)
        assert member.compression.codec_id == codec_by_name("bf16").codec_id
        assert member.compression.keep_ratio == 1.0
        assert list(member.sync_layers) == list(range(5))


async def test_report_foretells_operations_and_memory(network: Network, model: LoadedModel) -> None:
    members = await members_of(network)
    publisher = members["publisher"].planned
    assert publisher.flops_prefill > publisher.flops_decode > 0
    assert publisher.peak_memory_bytes > model.sizes.weight_bytes


async def test_budget_is_kept_by_fewer_rows_if_the_codec_is_given(network: Network) -> None:
    full = sent(await members_of(network, compression=wish_to_wire(BF16)))
    budget = session_pb2.ByteBudget(kv_bytes=full * 6 // 10)
    events = await ask(network, compression=wish_to_wire(BF16), budget=budget)
    result = events[-1].result
    members = {member.node_id: member for member in result.report.members}
    assert result.budget_steps == 2  # 0.7 of the rows are too many
    assert full * 3 // 10 < sent(members) <= full * 6 // 10
    assert {member.compression.codec_id for member in members.values()} == {
        codec_by_name("bf16").codec_id
    }
    assert {members[node].compression.keep_ratio for node in CONTRIBUTORS} == {0.5}


def calibrate(network: Network, *node_ids: str) -> None:
    for node_id in node_ids:
        node = network.nodes[node_id]
        node.profile = profile_of(node.prefiller.shape)


async def test_what_a_query_leaves_open_the_profile_of_its_publisher_says(network: Network) -> None:
    calibrate(network, "publisher", *CONTRIBUTORS)
    members = await members_of(network, plan="auto", compression=OPEN)
    for node in CONTRIBUTORS:
        assert members[node].state == session_pb2.OUTCOME_COMPLETE
        assert members[node].compression.selector == "learned"
        assert members[node].compression.keep_ratio == 0.5
        assert [at.layer for at in members[node].layers if at.up] == [1, 2, 3, 4]
    fewer = await members_of(network, plan="auto@1/20", compression=OPEN)
    assert {fewer[node].compression.keep_ratio for node in CONTRIBUTORS} == {0.2}
    assert sent(fewer) < sent(members)
    error = await failure(network, plan="auto@1/99", compression=OPEN)
    assert "sends 1/30 of bf16" in str(error)


async def test_budget_goes_down_the_points_of_the_profile(network: Network) -> None:
    calibrate(network, "publisher", *CONTRIBUTORS)
    whole = await members_of(network, plan="auto", compression=OPEN, no_reuse=True)
    limit = whole["publisher"].planned.bytes_down - 1
    budget = session_pb2.ByteBudget(link_bytes=limit)
    result = (await ask(network, plan="auto", compression=OPEN, budget=budget))[-1].result
    members = {member.node_id: member for member in result.report.members}
    assert result.budget_steps == 1
    assert {members[node].compression.keep_ratio for node in CONTRIBUTORS} == {0.2}
    assert sum(layer.down for layer in members["publisher"].layers) <= limit


async def test_node_without_a_profile_sends_all_rows_and_says_so(network: Network) -> None:
    calibrate(network, "publisher", "node-0")
    members = await members_of(network, plan="auto", compression=OPEN)
    scored, whole = (members[node] for node in CONTRIBUTORS)
    assert (scored.compression.selector, scored.compression.keep_ratio) == ("learned", 0.5)
    assert (whole.compression.selector, whole.compression.keep_ratio) == ("value-weighted", 1.0)
    assert scored.compression.codec_id == whole.compression.codec_id
    assert {member.state for member in members.values()} == {session_pb2.OUTCOME_COMPLETE}


async def test_shares_of_another_model_are_refused(network: Network) -> None:
    node = network.nodes["publisher"]
    node.profile = profile_of(replace(node.prefiller.shape, num_kv_heads=1))
    error = await failure(network, plan="auto", compression=OPEN)
    assert "head_shares: expected one of each of 10 heads, got 5" in str(error)


async def test_impossible_budget_fails_the_query_with_what_would_do(network: Network) -> None:
    error = await failure(network, budget=session_pb2.ByteBudget(kv_bytes=1))
    assert isinstance(error, InvalidRequestError)
    assert "the byte budget is too small" in str(error)


@pytest.mark.parametrize("field", ["kv_bytes", "link_bytes"])
async def test_budget_out_of_range_is_refused(network: Network, field: str) -> None:
    budget = session_pb2.ByteBudget()
    setattr(budget, field, 1 << 63)
    error = await failure(network, budget=budget)
    assert f"{field} of the budget must be between" in str(error)
