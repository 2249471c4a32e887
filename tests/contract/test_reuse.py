"""A second question over unchanged contexts: nothing moves, nothing but the answer differs."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fedattn.model import prefill
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import forward_tokens
from fedattn.passages.store import PassageStore
from fedattn.wire.v1 import participant_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.participant.context import PrivateContext
from services.participant.node import ParticipantNode
from tests.harness.networks import Network, ask, query, running_network
from tests.harness.tiny import FAMILIES, tiny_model, words

COMPUTED = session_pb2.ROW_SOURCE_COMPUTED
KEPT = session_pb2.ROW_SOURCE_CONTRIBUTOR_CACHE
HELD = session_pb2.ROW_SOURCE_PUBLISHER_CACHE


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


async def result(network: Network, **changes: object) -> pb.QueryResult:
    events = await ask(network, **changes)
    for node in network.nodes.values():
        await node.admission.wait_idle()
    return events[-1].result


def sources(result: pb.QueryResult) -> list[tuple[str, int]]:
    return [(member.node_id, member.row_source) for member in result.report.members[:-1]]


def bytes_up(result: pb.QueryResult) -> dict[str, int]:
    return {m.node_id: sum(layer.up for layer in m.layers) for m in result.report.members}


def num_forwards(node: ParticipantNode) -> int:
    return node.prefiller.num_forwards


@pytest.mark.parametrize("plan", ["all", "1,3", "0,2,4"])
@pytest.mark.parametrize("question", [words(60, 4), words(17, 7)])
async def test_second_question_moves_no_rows_and_gives_the_same_answer(
    plan: str, question: str, model: LoadedModel, tmp_path: Path
) -> None:
    async with running_network(model, tmp_path, is_sealed=True) as network:
        await result(network, plan=plan)
        before = {name: num_forwards(node) for name, node in network.nodes.items()}
        warm = await result(network, plan=plan, question=question)
        after = {name: num_forwards(node) for name, node in network.nodes.items()}
        cold = await result(network, plan=plan, question=question, no_reuse=True)
    assert sources(warm) == [("node-0", HELD), ("node-1", HELD)]
    assert sources(cold) == [("node-0", COMPUTED), ("node-1", COMPUTED)]
    assert sum(bytes_up(warm).values()) == 0
    assert sum(bytes_up(cold).values()) > 0
    assert {name: after[name] - before[name] for name in after} == {
        "node-0": 0,
        "node-1": 0,
        "publisher": 1,
    }
    assert warm.text == cold.text


async def test_a_changed_context_moves_behind_the_others_and_alone_is_computed(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with running_network(model, tmp_path, is_sealed=True) as network:
        await result(network)
        network.contexts["node-0"].write_text(words(3, 9))
        changed = await result(network)
        again = await result(network)
        network.contexts["node-0"].write_text(words(5, 8))
        changed_again = await result(network)
        cold = await result(network, no_reuse=True)
    assert sources(changed) == [("node-1", COMPUTED), ("node-0", COMPUTED)]
    assert sources(again) == [("node-1", HELD), ("node-0", HELD)]
    assert sources(changed_again) == [("node-1", KEPT), ("node-0", COMPUTED)]
    assert changed_again.text == cold.text


async def test_contexts_after_a_changed_one_are_computed_too_where_the_order_is_given(
    model: LoadedModel, tmp_path: Path
) -> None:
    order = ["node-1", "node-0"]
    async with running_network(model, tmp_path, is_sealed=True) as network:
        await result(network, contributors=order)
        network.contexts["node-1"].write_text(words(3, 9))
        first_changed = await result(network, contributors=order)
        network.contexts["node-0"].write_text(words(4, 9))
        last_changed = await result(network, contributors=order)
        cold = await result(network, contributors=order, no_reuse=True)
    assert sources(first_changed) == [("node-1", COMPUTED), ("node-0", COMPUTED)]
    assert sources(last_changed) == [("node-1", KEPT), ("node-0", COMPUTED)]
    assert last_changed.text == cold.text
    assert bytes_up(last_changed)["node-1"] < bytes_up(cold)["node-1"]


async def test_independent_contexts_are_reused_in_any_order(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with running_network(model, tmp_path, is_sealed=True) as network:
        await result(network, independent=True, contributors=["node-0", "node-1"])
        turned = await result(network, independent=True, contributors=["node-1", "node-0"])
        alone = await result(network, independent=True, contributors=["node-1"])
        cold = await result(
            network, independent=True, contributors=["node-1", "node-0"], no_reuse=True
        )
        dependent = await result(network, contributors=["node-1", "node-0"])
    assert sources(turned) == [("node-1", HELD), ("node-0", HELD)]
    assert sources(alone) == [("node-1", HELD)]
    assert sum(bytes_up(turned).values()) + sum(bytes_up(alone).values()) == 0
    assert turned.text == cold.text
    assert {source for _, source in sources(dependent)} == {COMPUTED}


async def test_a_changed_independent_context_invalidates_itself_alone(
    model: LoadedModel, tmp_path: Path
) -> None:
    order = ["node-1", "node-0"]
    async with running_network(model, tmp_path, is_sealed=True) as network:
        await result(network, independent=True, contributors=order)
        network.contexts["node-1"].write_text(words(3, 11))
        changed = await result(network, independent=True, contributors=order)
        cold = await result(network, independent=True, contributors=order, no_reuse=True)
    assert sources(changed) == [("node-1", COMPUTED), ("node-0", HELD)]
    assert changed.text == cold.text


async def test_another_plan_codec_or_selection_shares_nothing(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with running_network(model, tmp_path, is_sealed=True) as network:
        await result(network, plan="1,3")
        other = await result(network, plan="1,4")
        publisher = await result(network, plan="1,3", publisher_plan="all")
    assert {source for _, source in sources(other) + sources(publisher)} == {COMPUTED}


async def test_a_node_may_forbid_that_its_rows_are_held(model: LoadedModel, tmp_path: Path) -> None:
    async with running_network(model, tmp_path, is_sealed=True) as network:
        network.nodes["node-0"].rows_lifetime_s = 0
        await result(network)
        again = await result(network)
        cold = await result(network, no_reuse=True)
    assert sources(again) == [("node-0", KEPT), ("node-1", HELD)]
    assert bytes_up(again)["node-0"] == bytes_up(cold)["node-0"]
    assert again.text == cold.text


async def test_rows_of_a_session_that_lost_somebody_are_not_reused(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with running_network(model, tmp_path, is_sealed=True) as network:
        node = network.nodes["node-0"]
        forward = node.prefiller.contribute
        node.prefiller.contribute = _fail  # type: ignore[method-assign,assignment]
        partial = await result(network)
        node.prefiller.contribute = forward  # type: ignore[method-assign]
        again = await result(network)
        cold = await result(network, no_reuse=True)
    assert partial.report.members[0].state == session_pb2.OUTCOME_LOST
    assert sources(again) == [("node-0", COMPUTED), ("node-1", COMPUTED)]
    assert again.text == cold.text


def _fail(*_: object) -> None:
    raise RuntimeError("defect")


async def test_warm_fetches_ahead_of_any_question(model: LoadedModel, tmp_path: Path) -> None:
    async with running_network(model, tmp_path, is_sealed=True) as network:
        response = await network.publisher.Warm(query(question=""))
        for node in network.nodes.values():
            await node.admission.wait_idle()
        first = await result(network)
        cold = await result(network, no_reuse=True)
    members = {member.node_id: member for member in response.report.members}
    assert members["node-0"].row_source == COMPUTED
    assert sources(first) == [("node-0", HELD), ("node-1", HELD)]
    assert first.text == cold.text


async def test_publishers_own_context_is_not_computed_again(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.txt"
    own.write_text(words(31, 12))
    lengths: list[int] = []

    def counting(*arguments: Any) -> torch.Tensor:
        lengths.append(len(arguments[2]))
        return forward_tokens(*arguments)

    async with running_network(model, tmp_path, is_sealed=True) as network:
        node = network.nodes["publisher"]
        node.context = PrivateContext(PassageStore(own, None), node.tokenizer)
        await result(network)
        monkeypatch.setattr(prefill, "forward_tokens", counting)
        warm = await result(network, question=words(17, 5))
        num_tokens, lengths[:] = list(lengths), []
        cold = await result(network, question=words(17, 5), no_reuse=True)
        own.write_text(words(40, 3))
        changed = await result(network, question=words(17, 5))
        fresh = await result(network, question=words(17, 5), no_reuse=True)
    end = len(node.tokenizer.question(""))
    assert num_tokens == [5 + end]
    assert 12 + 5 + end in lengths
    assert warm.text == cold.text
    assert sources(changed) == [("node-0", HELD), ("node-1", HELD)]
    assert changed.text == fresh.text
