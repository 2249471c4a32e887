"""Rows that stay with their owners: queries over a real network with certificates."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fedattn.core.errors import (
    InvalidRequestError,
    NotEnoughParticipantsError,
    PolicyRefusedError,
)
from fedattn.core.request import Exchange
from fedattn.model.loading import LoadedModel
from fedattn.runtime.audit import AuditLog
from fedattn.runtime.audit_chain import read_log
from fedattn.wire.enums import EXCHANGES
from fedattn.wire.v1 import participant_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.participant.asking import Asking
from services.participant.policy import PolicyFile
from tests.harness.networks import Network, ask, failure, running_network
from tests.harness.runners import make_node
from tests.harness.scenarios import ASKED_SCENARIOS, SCENARIOS
from tests.harness.tiny import NUM_LAYERS, words

ASK_AS_IT_IS = Asking.ask
ROWS, ASK = EXCHANGES.to_wire(Exchange.ROWS), EXCHANGES.to_wire(Exchange.ASK)


def alone(**changes: object) -> dict[str, object]:
    """A query of independent contributors: both exchanges compute the same."""
    usual = {"plan": "none", "publisher_plan": "all", "query_codec": "fp32", "independent": True}
    return {**usual, "contributors": ["node-0", "node-1"], **changes}


@asynccontextmanager
async def network_of(model: LoadedModel, folder: Path, **policies: str) -> AsyncIterator[Network]:
    """Nodes with the policies given by their names, node_0 and node_1."""
    async with running_network(model, folder, is_sealed=True) as network:
        for name, policy in policies.items():
            path = folder / f"{name}.toml"
            path.write_text(f"lowest_block = 0\n{policy}\n")
            node = network.nodes[name.replace("_", "-")]
            node.consent.policy = PolicyFile(path)
        yield network


def result_of(events: list[pb.QueryEvent]) -> pb.QueryResult:
    assert events[-1].HasField("result")
    return events[-1].result


def members_of(result: pb.QueryResult) -> dict[str, session_pb2.MemberReport]:
    return {member.node_id: member for member in result.report.members}


async def test_both_exchanges_give_the_same_answer_and_the_same_influence(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with network_of(model, tmp_path) as network:
        rows = result_of(await ask(network, **alone(exchange=ROWS)))
        asked = result_of(await ask(network, **alone(exchange=ASK)))
    assert asked.text == rows.text
    assert asked.num_tokens == rows.num_tokens
    before, after = members_of(rows), members_of(asked)
    for node_id, member in after.items():
        assert member.state == session_pb2.OUTCOME_COMPLETE
        assert member.influence == pytest.approx(before[node_id].influence, abs=1e-4)
    assert {after[name].row_source for name in ("node-0", "node-1")} == {
        session_pb2.ROW_SOURCE_ASKED
    }


def test_a_publisher_that_asks_claims_room_for_the_graphs_of_its_answer(model: LoadedModel) -> None:
    plain = make_node("publisher", model, None)
    with_graphs = make_node("publisher", replace(model, direct_bytes=1 << 20), None)
    for scenario, claimed in ((ASKED_SCENARIOS[0], [0, 0, 0, 1 << 20]), (SCENARIOS[1], [0, 0, 0])):
        layout = scenario.layout()
        more = [
            with_graphs.session_memory(layout, index) - plain.session_memory(layout, index)
            for index in range(len(layout.members))
        ]
        assert more == claimed
    plain.close()
    with_graphs.close()


async def test_the_report_counts_round_trips_and_drafts(model: LoadedModel, tmp_path: Path) -> None:
    async with network_of(model, tmp_path) as network:
        result = result_of(await ask(network, **alone(exchange=ASK, asked_plan="1,3")))
    passes = 2 + result.asked.passes  # the prefill before, and the one that finds sources
    assert result.asked.accepted <= result.asked.drafted
    for member in members_of(result).values():
        assert member.round_trips == 2 * passes
        assert [at.layer for at in member.layers] == [1, 3]
        assert all(at.up and at.down for at in member.layers)


async def test_a_node_whose_rows_never_leave_is_asked_while_another_sends_its_rows(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with network_of(model, tmp_path, node_1="rows_may_leave = false") as network:
        both = result_of(await ask(network, **alone()))
        rows = result_of(await ask(network, **alone(exchange=ASK)))
    assert both.text == rows.text
    members = members_of(both)
    assert members["node-0"].row_source == session_pb2.ROW_SOURCE_COMPUTED
    assert members["node-1"].row_source == session_pb2.ROW_SOURCE_ASKED


async def test_rows_that_never_leave_are_refused_to_who_wants_rows(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with network_of(model, tmp_path, node_1="rows_may_leave = false") as network:
        error = await failure(network, **alone(exchange=ROWS, contributors=["node-1"]))
    assert isinstance(error, PolicyRefusedError)
    assert "rule rows_may_leave: exchange rows was asked for, allowed: ask" in str(error)


async def test_a_node_that_may_not_be_asked_refuses_that(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with network_of(model, tmp_path, node_0="may_be_asked = false") as network:
        error = await failure(network, **alone(exchange=ASK, contributors=["node-0"]))
        result = result_of(await ask(network, **alone(contributors=["node-0"])))
    assert isinstance(error, PolicyRefusedError)
    assert "may_be_asked" in str(error)
    assert members_of(result)["node-0"].row_source == session_pb2.ROW_SOURCE_COMPUTED


async def test_the_lowest_block_of_a_policy_holds_for_queries_too(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with network_of(model, tmp_path) as network:
        network.nodes["node-0"].consent.policy = PolicyFile()
        error = await failure(network, **alone(exchange=ASK, contributors=["node-0"]))
    assert isinstance(error, PolicyRefusedError)
    assert "lowest_block" in str(error)


async def test_a_node_that_answers_no_more_is_left_out_and_named(
    model: LoadedModel, tmp_path: Path
) -> None:
    """Its owner lets so many tokens be asked at a block as the question has, and two more."""
    async with network_of(model, tmp_path) as network:
        whole = result_of(await ask(network, **alone(exchange=ASK)))
    span_len = members_of(whole)["publisher"].span_len
    most = NUM_LAYERS * span_len + 2
    async with network_of(model, tmp_path, node_1=f"max_answers_per_query = {most}") as network:
        result = result_of(await ask(network, **alone(exchange=ASK)))
        again = result_of(await ask(network, **alone(exchange=ASK, contributors=["node-0"])))
    lost = members_of(result)["node-1"]
    assert lost.state == session_pb2.OUTCOME_LOST
    assert "max_answers_per_query" in lost.detail
    assert members_of(result)["node-0"].state == session_pb2.OUTCOME_COMPLETE
    assert result.num_tokens > 0
    assert members_of(again)["node-0"].state == session_pb2.OUTCOME_COMPLETE


async def test_without_a_required_node_that_is_lost_on_the_way_there_is_no_answer(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with network_of(model, tmp_path, node_1="max_answers_per_query = 1") as network:
        error = await failure(network, **alone(exchange=ASK, require=["node-1"]))
    assert isinstance(error, NotEnoughParticipantsError)
    assert "node-1" in str(error)


async def test_answers_of_an_hour_are_counted_over_sessions(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with network_of(model, tmp_path) as network:
        first = result_of(await ask(network, **alone(exchange=ASK)))
    audit_len = NUM_LAYERS * members_of(first)["publisher"].span_len * 4
    async with network_of(model, tmp_path, node_1=f"max_answers_per_hour = {audit_len}") as network:
        states = [
            members_of(result_of(await ask(network, **alone(exchange=ASK))))["node-1"].state
            for _ in range(4)
        ]
    assert states[0] == session_pb2.OUTCOME_COMPLETE
    assert states[-1] == session_pb2.OUTCOME_LOST


async def test_the_record_says_that_no_row_left(model: LoadedModel, tmp_path: Path) -> None:
    async with network_of(model, tmp_path) as network:
        node = network.nodes["node-0"]
        node.consent.audit = AuditLog(tmp_path / "audit.jsonl")
        result = result_of(await ask(network, **alone(exchange=ASK)))
        await node.consent.settled()
    sent = [dict(one) for one in read_log(tmp_path / "audit.jsonl").entries][-1]
    assert (sent["event"], sent["rows"], sent["keep_ratio"]) == ("sent", 0, 0.0)
    assert isinstance(sent["answers"], int)
    assert sent["answers"] > NUM_LAYERS * members_of(result)["publisher"].span_len


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"plan": "none", "asked_plan": "none"}, "no block to ask at"),
        ({"asked_plan": "99"}, "block 99"),
        ({"query_codec": "zip"}, "unknown codec for queries 'zip'"),
    ],
)
async def test_what_cannot_be_asked_is_refused_before_anybody_is_invited(
    changes: dict[str, str], told: str, model: LoadedModel, tmp_path: Path
) -> None:
    async with network_of(model, tmp_path) as network:
        error = await failure(network, **alone(exchange=ASK, **changes))
    assert told in str(error)
    if "plan" in changes:
        assert isinstance(error, InvalidRequestError)


async def test_a_second_question_computes_nothing_at_those_who_are_asked(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with network_of(model, tmp_path) as network:
        prefillers = [network.nodes[name].prefiller for name in ("node-0", "node-1")]
        first = result_of(await ask(network, **alone(exchange=ASK)))
        computed = [prefiller.num_forwards for prefiller in prefillers]
        second = result_of(
            await ask(network, **alone(exchange=ASK, contributors=["node-1", "node-0"]))
        )
        again = result_of(await ask(network, **alone(exchange=ASK)))
        assert [prefiller.num_forwards for prefiller in prefillers] == computed
        network.contexts["node-0"].write_text(words(70, 9))
        await ask(network, **alone(exchange=ASK))
        assert [prefiller.num_forwards for prefiller in prefillers] == [
            computed[0] + 1,
            computed[1],
        ]
    assert again.text == first.text
    assert second.num_tokens == first.num_tokens  # places in token order may change


async def test_queries_among_the_rows_they_are_about_are_refused(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that stands at the second row would see the first alone."""
    monkeypatch.setattr(
        Asking, "ask", lambda self, layer, queries, _: ASK_AS_IT_IS(self, layer, queries, 4)
    )
    async with network_of(model, tmp_path) as network:
        error = await failure(network, **alone(exchange=ASK))
    assert "node-0 is lost (queries of the publisher at block 0 stand at position 4" in str(error)


async def test_queries_longer_than_the_model_makes_them_are_refused(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Asking, "ask", lambda self, layer, queries, at: ASK_AS_IT_IS(self, layer, 1e4 * queries, at)
    )
    async with network_of(model, tmp_path) as network:
        error = await failure(network, **alone(exchange=ASK))
    assert "no text makes such queries of this model" in str(error)


async def test_an_owner_may_blunt_the_answers(model: LoadedModel, tmp_path: Path) -> None:
    async with network_of(model, tmp_path) as network:
        sharp = result_of(await ask(network, **alone(exchange=ASK)))
    policies = dict.fromkeys(("node_0", "node_1"), "answer_least_rows = 6\nanswer_noise = 2.0")
    async with network_of(model, tmp_path, **policies) as network:
        blunt = result_of(await ask(network, **alone(exchange=ASK)))
    assert blunt.text != sharp.text
