"""Participants over real sockets: publishing, contributing, and what can go wrong."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
import torch

from fedattn.core.errors import AggregatorUnavailableError
from fedattn.core.sampling import SamplingParams
from fedattn.core.terms import SessionTerms
from fedattn.model.decode import CacheState, TransformersDecoder
from fedattn.model.loading import LoadedModel
from fedattn.research.oracle import oracle_greedy
from fedattn.wire.convert import sampling_to_wire
from fedattn.wire.v1 import participant_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.aggregator.__main__ import start_aggregator, stop_aggregator
from services.aggregator.settings import AggregatorSettings
from services.participant.door import Door
from services.participant.report import local_report
from tests.harness.channels import way_to
from tests.harness.networks import (
    NUM_NEW_TOKENS,
    Network,
    ask,
    failure,
    query,
    running_network,
)
from tests.harness.raw import frame_chunks, hello, raw_node
from tests.harness.runners import make_node, running_aggregator, running_participant
from tests.harness.scenarios import Scenario, context_words
from tests.harness.tiny import word_tokenizer, words


def impatient() -> AggregatorSettings:
    """Settings under which a silent contributor is soon too late."""
    return AggregatorSettings(
        listen="127.0.0.1:0",
        grace_s=0.0,
        progress_timeout_s=1.0,
        stall_timeout_s=0.1,
        report_timeout_s=0.1,
    )


def expected_text(model: LoadedModel, lengths: tuple[int, ...], plan: str = "all") -> str:
    scenario = Scenario(name="", contexts=context_words(*lengths), plan=plan, publisher_plan=plan)
    tokens = oracle_greedy(model, scenario.layout(), scenario.joined(), NUM_NEW_TOKENS)
    return word_tokenizer().decode(tokens)


async def test_answer_is_the_oracles(network: Network, model: LoadedModel) -> None:
    events = await ask(network)
    result = events[-1].result
    assert result.text == expected_text(model, (6, 7))
    assert "".join(event.token.text for event in events) == result.text
    assert result.num_tokens == NUM_NEW_TOKENS
    assert result.finish_reason == pb.FINISH_REASON_LENGTH
    assert [event.layer.layer for event in events if event.HasField("layer")] == [0, 1, 2, 3, 4]


async def test_report_names_everyone_and_counts_both_directions(network: Network) -> None:
    result = (await ask(network))[-1].result
    members = result.report.members
    assert [member.node_id for member in members] == ["node-0", "node-1", "publisher"]
    up = sum(layer.up for member in members for layer in member.layers)
    down = {m.node_id: sum(layer.down for layer in m.layers) for m in members}
    assert up == down["publisher"]  # the publisher receives all that was sent
    assert 0 < down["node-1"] < up
    assert down["node-0"] == 0  # nobody is before it


async def test_changed_context_changes_the_answer_without_a_restart(
    network: Network, model: LoadedModel
) -> None:
    before = (await ask(network))[-1].result.text
    network.contexts["node-1"].write_text(words(16, 12))
    after = (await ask(network))[-1].result.text
    assert before == expected_text(model, (6, 7))
    assert after == expected_text(model, (6, 12))
    assert before != after


async def test_any_participant_may_publish_and_contribute_at_once(
    network: Network, model: LoadedModel
) -> None:
    answers = await asyncio.gather(*(ask(network) for _ in range(2)))
    assert {events[-1].result.text for events in answers} == {expected_text(model, (6, 7))}


async def test_chosen_contributors_alone_take_part(network: Network, model: LoadedModel) -> None:
    result = (await ask(network, contributors=["node-0"]))[-1].result
    assert result.text == expected_text(model, (6,))


async def test_sampling_is_seeded(network: Network) -> None:
    hot = SamplingParams(
        max_new_tokens=NUM_NEW_TOKENS, temperature=2.0, top_k=20, top_p=0.9, seed=3
    )
    other = SamplingParams(
        max_new_tokens=NUM_NEW_TOKENS, temperature=2.0, top_k=20, top_p=0.9, seed=4
    )
    first, again, third = [
        (await ask(network, sampling=sampling_to_wire(s)))[-1].result.text
        for s in (hot, hot, other)
    ]
    assert first == again
    assert first != third


async def test_stop_string_ends_the_answer_before_it(network: Network) -> None:
    whole = (await ask(network))[-1].result.text
    stop = whole.split()[2]
    sampling = SamplingParams(max_new_tokens=NUM_NEW_TOKENS, stop=(stop,))
    result = (await ask(network, sampling=sampling_to_wire(sampling)))[-1].result
    assert result.text == whole[: whole.index(stop)]
    assert result.finish_reason == pb.FINISH_REASON_STOP


@pytest.mark.parametrize(
    ("changes", "code", "words_in_message"),
    [
        ({"question": "  "}, "empty_question", "write what you want to know"),
        ({"plan": "sometimes"}, "invalid_plan", "'sometimes'"),
        ({"plan": "7"}, "invalid_plan", "blocks 0 to 4"),
        ({"publisher_plan": "9-"}, "invalid_plan", "9-"),
        (
            {"compression": session_pb2.CompressionWish(codec_id=99)},
            "invalid_request",
            "codec number 99",
        ),
        ({"contributors": ["ghost"]}, "unknown_participant", "'ghost'"),
        ({"min_participants": 4}, "not_enough_participants", "4 are required"),
        ({"question": words(3, 300)}, "context_too_long", "window of 256"),
        ({"deadline_s": 0.0}, "invalid_request", "deadline_s"),
    ],
    ids=lambda value: str(next(iter(value.items())))[:40] if isinstance(value, dict) else "",
)
async def test_bad_query_is_refused_with_the_reason(
    network: Network, changes: dict[str, object], code: str, words_in_message: str
) -> None:
    error = await failure(network, **changes)
    assert (error.code, words_in_message in str(error)) == (code, True), str(error)


async def test_a_text_too_long_for_the_window_takes_part_as_far_as_it_fits(
    network: Network,
) -> None:
    network.contexts["node-0"].write_text("\n\n".join(words(1, 150) for _ in range(4)))
    result = (await ask(network, contributors=["node-0"]))[-1].result
    member = next(one for one in result.report.members if one.node_id == "node-0")
    assert (member.context.num_tokens, member.context.num_passages) == (600, 12)
    assert 0 < member.num_passages < 12
    assert member.text_len == member.span_len < 250


async def test_other_system_prompt_is_noticed(network: Network) -> None:
    node = network.nodes["node-0"]
    node.prefix = (9, 9, 9)
    error = await failure(network, contributors=["node-0"])
    assert error.code == "prefix_mismatch"


async def test_unreadable_context_is_a_decline_without_its_text(network: Network) -> None:
    network.contexts["node-0"].write_bytes(b"secret \xff\xfe")
    error = await failure(network, contributors=["node-0"])
    assert error.code == "context_unreadable"
    assert "secret" not in str(error)


async def test_cancelled_query_leaves_nothing_running(network: Network) -> None:
    long = SamplingParams(max_new_tokens=150)
    call = network.publisher.Query(query(sampling=sampling_to_wire(long)))
    await call.read()
    call.cancel()
    for node in network.nodes.values():
        await node.admission.wait_idle()
    assert all(node.admission.active_sessions == 0 for node in network.nodes.values())


async def test_busy_publisher_says_so(network: Network) -> None:
    node = network.nodes["publisher"]
    places = [node.admission.take("publisher", "") for _ in range(node.max_sessions)]
    error = await failure(network)
    assert error.code == "node_busy"
    for place in places:
        place.release()
        place.release()  # a second time changes nothing
    assert node.admission.active_sessions == 0


async def test_deadline_ends_a_query_that_waits_for_a_silent_contributor(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with (
        running_network(model, tmp_path) as network,
        silent_contributor(network.aggregator, model),
    ):
        error = await failure(network, contributors=["silent", "node-0"], deadline_s=0.5)
    assert error.code in {"deadline_exceeded", "session_aborted"}
    assert "deadline" in str(error)


async def test_silent_contributor_is_left_out_and_the_answer_says_so(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with running_network(model, tmp_path, impatient()) as network:
        async with silent_contributor(network.aggregator, model):
            events = await ask(network, contributors=["node-0", "silent"])
    members = {member.node_id: member for member in events[-1].result.report.members}
    assert members["silent"].state == session_pb2.OUTCOME_LOST
    assert members["silent"].missing_from_layer == 0
    assert members["silent"].detail == "it sent no rows for 1 s while others waited for them"
    assert members["node-0"].state == session_pb2.OUTCOME_COMPLETE


async def test_session_fails_below_its_fewest_participants(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with running_network(model, tmp_path, impatient()) as network:
        async with silent_contributor(network.aggregator, model):
            error = await failure(network, contributors=["node-0", "silent"], min_participants=3)
    assert error.code == "not_enough_participants"
    assert "silent is lost (it sent no rows for 1 s" in str(error)


@asynccontextmanager
async def silent_contributor(
    address: str, model: LoadedModel, layers: tuple[int, ...] = ()
) -> AsyncIterator[None]:
    """A node that accepts, attaches, sends its rows of some layers, and then nothing."""
    shape = model.shape
    async with raw_node(
        address,
        "silent",
        fingerprint=model.fingerprint,
        shape=shape,
        max_positions=model.max_positions,
    ) as node:

        async def attach() -> None:
            await node.accept(3)
            start = await node.started()

            async def requests() -> AsyncIterator[object]:
                yield hello(start)
                for layer in layers:
                    for chunk in frame_chunks(start, "silent", layer):
                        yield chunk
                await asyncio.Event().wait()

            call = node.stub.Exchange(requests())  # type: ignore[arg-type]
            await call.read()

        attaching = asyncio.create_task(attach())
        try:
            yield
        finally:
            attaching.cancel()
            await asyncio.gather(attaching, return_exceptions=True)


async def test_participant_joins_again_when_the_aggregator_comes_back(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with running_aggregator() as address:
        port = address.rpartition(":")[2]
        node = make_node("node-0", model, None)
        running = running_participant(node, address)
        participant = await running.__aenter__()
        joined = participant.control.joined
    while joined.is_set():
        await joined.changed()
    settings = AggregatorSettings(listen=f"127.0.0.1:{port}", grace_s=0)
    async with running_aggregator(settings):
        await joined.wait_joined()
        await running.__aexit__(None, None, None)


class _LateDecoder(TransformersDecoder):
    """Decodes once something has happened."""

    def __init__(self, model: LoadedModel, happened: threading.Event) -> None:
        super().__init__(model)
        self._happened = happened

    def step(self, states: Sequence[CacheState], tokens: Sequence[int]) -> torch.Tensor:
        self._happened.wait()
        return super().step(states, tokens)


async def test_answer_survives_a_session_that_is_lost_while_decoding(
    model: LoadedModel,
) -> None:
    """Decoding needs no session."""
    settings = AggregatorSettings(listen="127.0.0.1:0", grace_s=0, report_timeout_s=3600)
    server, servicer = await start_aggregator(settings)
    address = f"127.0.0.1:{server.port}"
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        stack.push_async_callback(stop_aggregator, server, servicer, 0)
        await enter(silent_contributor(address, model, layers=(1,)))
        node = make_node("publisher", model, None)
        node.publishes = True
        is_lost = threading.Event()
        node.make_decoder = lambda: _LateDecoder(model, is_lost)
        await enter(running_participant(node, address))
        way = await enter(way_to("publisher", address))
        events = []
        async for event in way.stub.Query(query(contributors=["silent"], plan="1")):
            events.append(event)
            if event.HasField("token"):
                servicer.sessions.close()
                is_lost.set()
    result = events[-1].result
    assert result.num_tokens == NUM_NEW_TOKENS
    assert {member.node_id for member in result.report.members} == {"silent", "publisher"}
    assert any("the aggregator" in member.detail for member in result.report.members)


async def test_report_without_the_aggregator_names_everyone_and_what_is_missing(
    model: LoadedModel,
) -> None:
    scenario = Scenario(name="", contexts=context_words(3, 2), plan="all", publisher_plan="all")
    layout = scenario.layout()
    terms = SessionTerms(
        session_id="0" * 32,
        layout=layout,
        shape=model.shape,
        progress_timeout_s=1,
        deadline_s=1,
        min_participants=1,
    )
    report = local_report(
        terms,
        left_out={0: (2, "its disk is full"), 1: (3, "no rows for 1 s")},
        late={1},
        excluded=[session_pb2.MemberReport(node_id="other", detail="of another model")],
    )
    *members, other = report.members
    assert [(member.node_id, member.span_len) for member in members] == [
        (member.node_id, len(member.span)) for member in layout.members
    ]
    assert [(member.state, member.missing_from_layer) for member in members] == [
        (session_pb2.OUTCOME_LOST, 2),
        (session_pb2.OUTCOME_LATE, 3),
        (session_pb2.OUTCOME_COMPLETE, 0),
    ]
    assert all("the aggregator was lost" in member.detail for member in members)
    assert members[1].detail.startswith("no rows for 1 s; ")
    assert (other.node_id, other.detail) == ("other", "of another model")


async def test_gateway_reaches_a_publisher_again_after_the_aggregator_was_gone(
    model: LoadedModel,
) -> None:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        first = running_aggregator()
        address = await first.__aenter__()
        node = make_node("publisher", model, None)
        node.publishes = True
        publisher = await enter(running_participant(node, address))
        way = await enter(way_to("publisher", address))
        await way.connect()
        lost = aiter(way.stub.Query(query(min_participants=1)))
        await anext(lost)
        await first.__aexit__(None, None, None)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in lost:
                pass
        error = await way.error_of(caught.value)
        assert isinstance(error, AggregatorUnavailableError)  # between them, and named for it
        while publisher.control.joined.is_set():
            await publisher.control.joined.changed()
        with pytest.raises(AggregatorUnavailableError):
            await way.connect()
        await enter(running_aggregator(AggregatorSettings(listen=address, grace_s=0)))
        await publisher.control.joined.wait_joined()
        await way.aggregator.reach(10)
        await way.connect()
        events = [event async for event in way.stub.Query(query(min_participants=1))]
        assert events[-1].HasField("result")


async def test_publisher_stays_joined_until_its_last_words_are_through(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined: list[bool] = []
    node = make_node("publisher", model, None)
    node.publishes = True
    async with running_aggregator() as address, running_participant(node, address) as publisher:
        close = Door.close

        async def closing(door: Door) -> None:
            await close(door)
            joined.append(publisher.control.joined.is_set())

        monkeypatch.setattr(Door, "close", closing)
    assert joined == [True]
