"""Compression changes what travels, and nothing else: oracle, in-process and network agree."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedattn.core.codecs import CODECS, codec_by_name
from fedattn.core.codecs.codec import CodecId
from fedattn.core.codecs.raw import RawCodec
from fedattn.core.compression import Compression
from fedattn.core.selection import SELECTORS
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.prefill import Prefiller
from fedattn.research.oracle import oracle_greedy, oracle_logits
from tests.harness.runners import prefill_in_process, run_grpc, run_in_process
from tests.harness.scenarios import LOSSLESS, NUM_NEW_TOKENS, Scenario, context_words
from tests.harness.tiny import ALL_FAMILIES, FAMILIES, tiny_model

TOLERANCE = 1e-4


def scenario(compression: Compression) -> Scenario:
    """Three contributors that exchange among themselves too."""
    return Scenario(
        name="compressed",
        contexts=context_words(13, 1, 9),
        plan="1,3",
        publisher_plan="all",
        compression=compression,
    )


@pytest.mark.parametrize("keep_ratio", [0.5, 0.1])
@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("family", FAMILIES)
async def test_network_with_selected_rows_equals_the_oracle_that_is_told_which(
    family: str, selector: str, keep_ratio: float, tmp_path: Path
) -> None:
    model = tiny_model(family)
    case = scenario(replace(LOSSLESS, selector=selector, keep_ratio=keep_ratio, seed=3))
    kept = prefill_in_process(case, model)[1].kept_positions()
    assert {len(head) for (owner, _), heads in kept.items() if owner == 0 for head in heads} == {
        max(1, int(13 * keep_ratio))
    }
    outcome = await run_grpc(case, model, tmp_path)
    layout, joined = case.layout(), case.joined()
    expected = oracle_logits(model, layout, joined, [], kept)[-1]
    torch.testing.assert_close(outcome.logits, expected, atol=TOLERANCE, rtol=0)
    assert outcome.generated == oracle_greedy(model, layout, joined, NUM_NEW_TOKENS, kept)


@pytest.mark.parametrize("keep_ratio", [1.0, 0.5])
@pytest.mark.parametrize("family", FAMILIES)
async def test_network_with_dropped_inputs_equals_the_oracle(
    family: str, keep_ratio: float, tmp_path: Path
) -> None:
    model = tiny_model(family)
    case = scenario(replace(LOSSLESS, input_keep_ratio=0.5, keep_ratio=keep_ratio, seed=5))
    kept = prefill_in_process(case, model)[1].kept_positions()
    outcome = await run_grpc(case, model, tmp_path)
    layout, joined = case.layout(), case.joined()
    expected = oracle_logits(model, layout, joined, [], kept)[-1]
    torch.testing.assert_close(outcome.logits, expected, atol=TOLERANCE, rtol=0)
    assert outcome.generated == oracle_greedy(model, layout, joined, NUM_NEW_TOKENS, kept)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("family", FAMILIES)
async def test_network_equals_in_process_with_every_codec(
    family: str, codec: RawCodec, tmp_path: Path
) -> None:
    model = tiny_model(family)
    case = scenario(Compression(codec=codec, keep_ratio=0.7))
    inside = await run_in_process(case, model, tmp_path)
    outside = await run_grpc(case, model, tmp_path)
    torch.testing.assert_close(outside.logits, inside.logits, atol=1e-6, rtol=0)
    assert outside.generated == inside.generated
    assert outside.uploaded_bytes == inside.uploaded_bytes


class BeforeRope(RawCodec):
    """Lossless, but keys travel before RoPE."""

    keys_before_rope = True


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_keys_sent_before_rope_arrive_at_their_global_positions(family: str) -> None:
    codec = BeforeRope("fp32", CodecId.RAW_FP32, relative_error=0.0, smallest=0.0, largest=3e38)
    model, case = tiny_model(family), scenario(replace(LOSSLESS, keep_ratio=0.5))
    _, plain = prefill_in_process(case, model)
    kept = plain.kept_positions()
    layout = case.layout()
    turned = replace(
        layout,
        members=tuple(
            replace(member, compression=replace(member.compression, codec=codec))
            for member in layout.members
        ),
    )
    prefix, spans, question = case.tokens()
    prefiller = Prefiller(model)
    store = KvStore(turned, model.shape, model.rotaries)
    for index, token_ids in enumerate(spans):
        exchange = InProcessExchange(store, index)
        prefiller.contribute(turned.members[index], prefix, token_ids, exchange)
    last = InProcessExchange(store, len(spans))
    logits = prefiller.publish(turned.publisher, prefix, question, last).logits
    expected = oracle_logits(model, layout, case.joined(), [], kept)[-1]
    torch.testing.assert_close(logits, expected, atol=TOLERANCE, rtol=0)
    turns = len(model.rotaries[1].inverse_frequencies) > 0
    assert (plain.get(0, 1) != store.get(0, 1)) == turns


def test_members_of_one_session_may_compress_differently() -> None:
    model, case = tiny_model("llama"), scenario(LOSSLESS)
    layout = case.layout()
    first = replace(LOSSLESS, codec=codec_by_name("int8"), keep_ratio=0.5)
    members = (replace(layout.members[0], compression=first), *layout.members[1:])
    mixed = replace(layout, members=members)
    store = KvStore(mixed, model.shape, model.rotaries)
    prefix, spans, _ = case.tokens()
    for index, token_ids in enumerate(spans):
        exchange = InProcessExchange(store, index)
        Prefiller(model).contribute(mixed.members[index], prefix, token_ids, exchange)
    sent = [store.rows(index, 1) for index in range(3)]
    assert [rows.counts for rows in sent] == [(6, 6), (1, 1), (9, 9)]
    assert np.isin(sent[0].positions, layout.members[0].input_positions()).all()
