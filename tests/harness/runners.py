"""Runs a scenario over each implementation of `KvExchange`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry

from fedattn.core.node_id import AGGREGATOR
from fedattn.core.request import SessionOptions, SessionRequest, describe_prefix
from fedattn.core.sampling import SamplingParams
from fedattn.core.seals import SEAL_SIZE
from fedattn.model.decode import TransformersDecoder, generate_tokens
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import Prefiller, PrefillResult
from fedattn.model.prompt import PromptTokenizer
from fedattn.passages.store import PassageStore
from fedattn.runtime.audit import AuditLog
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.requests import Opening, request_to_wire
from fedattn.wire.sealing import KeyPair
from fedattn.wire.security import OwnCertificates
from fedattn.wire.v1 import session_pb2
from services.aggregator.__main__ import start_aggregator, stop_aggregator
from services.aggregator.settings import AggregatorSettings
from services.participant.app import Participant
from services.participant.context import PrivateContext
from services.participant.exchange import GrpcKvExchange
from services.participant.exchange_options import PublisherOptions
from services.participant.kv_cache import KvCache
from services.participant.memory import MemoryBudget
from services.participant.node import ParticipantNode
from services.participant.pressure import PressureGauge, PressureLimits
from services.participant.settings import ParticipantSettings
from services.participant.terms import agree, read_request
from tests.harness.channels import direct_channel
from tests.harness.identities import certificates_of
from tests.harness.learned import random_scorer
from tests.harness.policies import every_block
from tests.harness.profiles import profile_of
from tests.harness.scenarios import NUM_NEW_TOKENS, PUBLISHER, Scenario
from tests.harness.tiny import word_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the publisher got.

    Attributes:
        logits: [V] for the first answer token.
        generated: greedy tokens.
        uploaded_bytes: bytes of all frames sent, without their seals.
    """

    logits: torch.Tensor
    generated: list[int]
    uploaded_bytes: int


Runner = Callable[[Scenario, LoadedModel, Path], Awaitable[Outcome]]


async def run_in_process(scenario: Scenario, model: LoadedModel, folder: Path) -> Outcome:
    """All participants in this thread, one after the other."""
    prefill, store = prefill_in_process(scenario, model)
    return _decode(model, prefill, store.uploaded_bytes)


def prefill_in_process(scenario: Scenario, model: LoadedModel) -> tuple[PrefillResult, KvStore]:
    """What the publisher decodes from, and the frames that travelled."""
    prefiller = Prefiller(model)
    prefix, spans, question = scenario.tokens()
    layout = scenario.layout()
    scorer = random_scorer(model.shape)
    store = KvStore(layout, model.shape, model.rotaries, scorer=scorer, windows=model.windows)
    for index, token_ids in enumerate(spans):
        exchange = InProcessExchange(store, index)
        prefiller.contribute(layout.members[index], prefix, token_ids, exchange)
    last = InProcessExchange(store, len(spans))
    return prefiller.publish(layout.publisher, prefix, question, last), store


async def run_grpc(scenario: Scenario, model: LoadedModel, folder: Path) -> Outcome:
    """Real aggregator and participants over loopback, with certificates, and so sealed."""
    async with AsyncExitStack() as stack:
        own = certificates_of(AGGREGATOR)
        address = await stack.enter_async_context(running_aggregator(certificates=own))
        for index, node_id in enumerate(scenario.node_ids()):
            text = scenario.contexts[index]
            path = folder / f"{node_id}.txt"
            path.write_text(text)
            own = certificates_of(node_id)
            node = make_node(node_id, model, path, scenario.tokenizer, own)
            if index in scenario.asked:
                node.consent.policy = every_block(rows_may_leave=False)
            node.profile = profile_of(model.shape, model.fingerprint)
            await stack.enter_async_context(running_participant(node, address))
        own = certificates_of(PUBLISHER)
        publisher = make_node(PUBLISHER, model, None, scenario.tokenizer, own)
        await stack.enter_async_context(running_participant(publisher, address))
        channel = await stack.enter_async_context(direct_channel(address, own, peer=AGGREGATOR))
        aggregator = AggregatorClient(lambda: channel, address)
        return await _publish(scenario, model, publisher, aggregator)


RUNNERS: dict[str, Runner] = {"in-process": run_in_process, "gRPC": run_grpc}


async def _publish(
    scenario: Scenario, model: LoadedModel, node: ParticipantNode, aggregator: AggregatorClient
) -> Outcome:
    prefix = scenario.tokenizer.prefix()
    question = scenario.tokens()[2]
    keys = KeyPair()
    request = SessionRequest(
        node_id=PUBLISHER,
        key=keys.public,
        span_len=len(question),
        prefix=describe_prefix(scenario.prefix_mode, prefix),
        plans=scenario.plans(),
        max_new_tokens=NUM_NEW_TOKENS,
        compression=scenario.compression,
        options=SessionOptions(
            contributors=tuple(scenario.node_ids()),
            prefix=scenario.prefix_mode,
            min_participants=sum(map(bool, scenario.contexts)) + 1,
            deadline_s=60,
            independent=scenario.independent,
        ),
    )
    signed = node.identity.sign(Kind.REQUEST, request_to_wire(request).SerializeToString())
    opening = Opening(signed=signed, request=request, node_token=node.token)
    start = (await aggregator.open_session(opening, timeout_s=60)).start
    agreement = agree(start, read_request(signed, node.identity), node)
    terms = agreement.terms
    sealing = agreement.sealing(node.identity, keys)
    exchange = GrpcKvExchange(
        terms,
        agreement.index,
        node.threads.pool,
        model,
        sealing=sealing,
        publisher=PublisherOptions(query_codec="fp32"),
    )
    transfer = asyncio.create_task(exchange.run(aggregator, start.member_token))
    own_prefix = prefix if terms.layout.prefix_len else []
    prefill = await node.threads.run(
        lambda: node.prefiller.publish(exchange.member, own_prefix, question, exchange)
    )
    generated = await node.threads.run(lambda: _decode(model, prefill, 0).generated)
    exchange.finish(0.0)
    await transfer
    report = exchange.report
    assert report is not None
    expected = {
        node_id: session_pb2.OUTCOME_COMPLETE if text else session_pb2.OUTCOME_EMPTY
        for node_id, text in zip(scenario.node_ids(), scenario.contexts, strict=True)
    }
    expected[PUBLISHER] = session_pb2.OUTCOME_COMPLETE
    assert {member.node_id: member.state for member in report.members} == expected
    frames = [
        one.up
        for member in report.members
        for one in member.layers
        if one.up and not member.round_trips
    ]
    return Outcome(
        logits=prefill.logits.clone(),
        generated=generated,
        uploaded_bytes=sum(frames) - SEAL_SIZE * len(frames),
    )


def _decode(model: LoadedModel, prefill: PrefillResult, uploaded_bytes: int) -> Outcome:
    sampling = SamplingParams.most_likely(NUM_NEW_TOKENS)
    return Outcome(
        logits=prefill.logits.clone(),
        generated=list(generate_tokens(model, prefill, sampling)),
        uploaded_bytes=uploaded_bytes,
    )


def make_node(
    node_id: str,
    model: LoadedModel,
    context: Path | None,
    tokenizer: PromptTokenizer | None = None,
    certificates: OwnCertificates | None = None,
    max_sessions: int = 4,
) -> ParticipantNode:
    """A node on a model that is already in memory; no pressure troubles it without limits."""
    tokenizer = tokenizer or word_tokenizer()
    return ParticipantNode(
        node_id=node_id,
        identity=Identity(certificates),
        model_name="tiny",
        software_version="test",
        prefiller=Prefiller(model),
        make_decoder=lambda: TransformersDecoder(model),
        tokenizer=tokenizer,
        context=PrivateContext(PassageStore(context, None), tokenizer),
        max_sessions=max_sessions,
        num_threads=torch.get_num_threads(),
        pressure=PressureGauge(PressureLimits()),
        memory=MemoryBudget(1 << 30),
        frames=KvCache(1 << 24),
        rows=KvCache(1 << 24),
        states=KvCache(1 << 24),
        asked=KvCache(1 << 24),
        rows_lifetime_s=60,
        policy=every_block(),
    )


@asynccontextmanager
async def running_aggregator(
    settings: AggregatorSettings | None = None,
    certificates: OwnCertificates | None = None,
    registry: CollectorRegistry | None = None,
    audit: AuditLog | None = None,
) -> AsyncIterator[str]:
    """An aggregator on a free port; yields its address."""
    settings = settings or AggregatorSettings(listen="127.0.0.1:0", grace_s=0)
    server, servicer = await start_aggregator(settings, certificates, registry, audit)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await stop_aggregator(server, servicer, settings.grace_s)


@asynccontextmanager
async def running_participant(node: ParticipantNode, aggregator: str) -> AsyncIterator[Participant]:
    """A joined participant, which publishes if its node does."""
    settings = ParticipantSettings(node_id=node.node_id, aggregator=aggregator, grace_s=0)
    participant = Participant(settings, node)
    stopping = asyncio.Event()
    serving = asyncio.create_task(participant.serve(stopping))
    joined = asyncio.create_task(participant.control.joined.wait_joined())
    await asyncio.wait({serving, joined}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if serving.done():
            serving.result()
        yield participant
    finally:
        joined.cancel()
        stopping.set()
        await serving
