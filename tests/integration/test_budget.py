"""Byte budgets over the wire: planned by the aggregator, kept, and told in the report."""

import pytest

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidRequestError
from fedattn.model.loading import LoadedModel
from fedattn.wire.convert import compression_to_wire
from fedattn.wire.v1 import participant_pb2, session_pb2
from tests.harness.networks import Network, ask, failure

BF16 = compression_to_wire(Compression(codec=codec_by_name("bf16")))
Members = dict[str, session_pb2.MemberReport]


async def members_of(network: Network, **changes: object) -> Members:
    result: participant_pb2.QueryResult = (await ask(network, **changes))[-1].result
    return {member.node_id: member for member in result.report.members}


def sent(members: Members) -> int:
    return sum(layer.up for member in members.values() for layer in member.layers)


def planned(members: Members) -> int:
    return sum(member.planned.bytes_up for member in members.values())


async def test_plan_of_a_raw_codec_is_exact_in_both_directions(network: Network) -> None:
    members = await members_of(network, compression=BF16)
    assert sent(members) == planned(members) > 0
    for member in members.values():
        assert member.planned.bytes_down == sum(layer.down for layer in member.layers)
        assert member.compression == BF16
        assert list(member.sync_layers) == list(range(5))


async def test_report_foretells_operations_and_memory(network: Network, model: LoadedModel) -> None:
    members = await members_of(network)
    publisher = members["publisher"].planned
    assert publisher.flops_prefill > publisher.flops_decode > 0
    assert publisher.peak_memory_bytes > model.sizes.weight_bytes


async def test_budget_is_kept_by_fewer_rows_if_the_codec_is_given(network: Network) -> None:
    full = sent(await members_of(network, compression=BF16))
    budget = session_pb2.ByteBudget(kv_bytes=full * 7 // 10)
    members = await members_of(network, compression=BF16, budget=budget)
    assert full / 2 < sent(members) <= full * 7 // 10
    assert {member.compression.codec_id for member in members.values()} == {BF16.codec_id}
    assert all(
        member.compression.keep_ratio < 1
        for member in members.values()
        if member.role == session_pb2.ROLE_CONTRIBUTOR
    )


async def test_budget_of_a_link_is_kept_by_a_coarser_codec_if_it_may_be_chosen(
    network: Network,
) -> None:
    auto = compression_to_wire(Compression())
    whole = await members_of(network, compression=auto)
    limit = whole["publisher"].planned.bytes_down * 9 // 10
    budget = session_pb2.ByteBudget(link_bytes=limit, may_choose_codec=True)
    members = await members_of(network, compression=auto, budget=budget)
    assert sum(layer.down for layer in members["publisher"].layers) <= limit
    coarse = int(codec_by_name("entropy-coarse").codec_id)
    assert {member.compression.codec_id for member in members.values()} == {coarse}


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
