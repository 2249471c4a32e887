"""Heads that keep rows of their own: whatever computes, each query sees what the definition says.

That is so with rows as they arrived: those of the selector `learned` are refitted on their way, so
the oracle is told their biases and values.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedattn.core.codecs import CODECS, Codec, codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.sampling import SamplingParams
from fedattn.model import roomy_rows
from fedattn.model.decode import answer_log_probs, generate_tokens
from fedattn.model.fused import FLOAT32, FusedDecoder
from fedattn.model.loading import LoadedModel, wrap_model
from fedattn.model.prefill import Prefiller, PrefillResult
from fedattn.research.oracle import oracle_greedy, oracle_logits
from tests.harness.learned import ragged
from tests.harness.runners import prefill_in_process, run_grpc, run_in_process
from tests.harness.scenarios import LOSSLESS, NUM_NEW_TOKENS, SCENARIOS, Scenario, context_words
from tests.harness.tiny import UNLIKE_FAMILIES, tiny_model, tiny_network

TOLERANCE = 1e-4
VARIED = [SCENARIOS[index] for index in (1, 3, 6, 8, 10, 12)] + [
    replace(
        SCENARIOS[8], name="dropped tokens", compression=replace(LOSSLESS, input_keep_ratio=0.7)
    )
]
GREEDY = SamplingParams.most_likely(NUM_NEW_TOKENS)


@pytest.fixture(scope="module", params=UNLIKE_FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


def between_all(compression: Compression) -> Scenario:
    """Three contributors that exchange among themselves at every block too."""
    return Scenario(
        name="ragged",
        contexts=context_words(13, 1, 9),
        plan="all",
        publisher_plan="all",
        compression=compression,
    )


def is_ragged(prefill: PrefillResult) -> list[bool]:
    """Whether heads received different rows, of each block."""
    return [layer.others is not None for layer in prefill.cache.layers]


@pytest.mark.parametrize("scenario", VARIED, ids=lambda scenario: scenario.name)
def test_prefill_and_both_decoders_equal_the_oracle(scenario: Scenario, model: LoadedModel) -> None:
    inputs = scenario.compression.input_keep_ratio
    compression = replace(ragged(LOSSLESS, model.shape), input_keep_ratio=inputs, least_rows=8)
    scenario = replace(scenario, compression=compression)
    prefill, store = prefill_in_process(scenario, model)
    kept, came = store.kept_positions(), store.travelled()
    args = (model, scenario.layout(), scenario.joined())
    expected = oracle_logits(*args, [], kept, travelled=came)[-1]
    torch.testing.assert_close(prefill.logits, expected, atol=TOLERANCE, rtol=0)
    greedy = oracle_greedy(*args, NUM_NEW_TOKENS, kept, travelled=came)
    fused = generate_tokens(model, prefill, GREEDY, lambda: FusedDecoder(model, FLOAT32))
    assert list(fused) == greedy
    assert list(generate_tokens(model, prefill, GREEDY)) == greedy


@pytest.mark.parametrize(("codec", "least_rows"), [("fp32", 0), ("entropy-medium", 12)])
async def test_network_equals_in_process(
    codec: str, least_rows: int, model: LoadedModel, tmp_path: Path
) -> None:
    compression = ragged(Compression(codec=codec_by_name(codec)), model.shape)
    case = between_all(replace(compression, least_rows=least_rows))
    inside = await run_in_process(case, model, tmp_path)
    outside = await run_grpc(case, model, tmp_path)
    torch.testing.assert_close(outside.logits, inside.logits, atol=1e-6, rtol=0)
    assert outside.generated == inside.generated
    assert outside.uploaded_bytes == inside.uploaded_bytes


@pytest.mark.parametrize("most_padding", [0, roomy_rows._MOST_PADDING])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_rows_of_every_codec_are_seen_as_they_arrived(
    codec: Codec, most_padding: int, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fused decoder against the blocks of transformers, behind the codec's own rounding.

    With heads one by one, and filled up to one length.
    """
    monkeypatch.setattr(roomy_rows, "_MOST_PADDING", most_padding)
    case = between_all(ragged(Compression(codec=codec), model.shape))
    prefill, _ = prefill_in_process(case, model)
    assert all(is_ragged(prefill))
    decoder = FusedDecoder(model, FLOAT32)
    state = decoder.begin(prefill, 3)
    fused = torch.stack([decoder.step([state], [token])[0] for token in (5, 9, 60)])
    along = answer_log_probs(model, prefill, [5, 9, 60, 0])[1:]
    torch.testing.assert_close(fused.log_softmax(-1), along, atol=TOLERANCE, rtol=0)


def test_each_head_sees_the_rows_that_it_alone_received(model: LoadedModel) -> None:
    """The oracle that is told the rows of the heads in another order disagrees."""
    case = between_all(ragged(LOSSLESS, model.shape))
    prefill, store = prefill_in_process(case, model)
    swapped = {at: heads[::-1] for at, heads in store.kept_positions().items()}
    told = (case.layout(), case.joined())
    wrong = oracle_logits(model, *told, [], swapped, travelled=store.travelled())[-1]
    assert (prefill.logits - wrong).abs().max() > 100 * TOLERANCE


def test_no_row_is_held_that_did_not_come(model: LoadedModel) -> None:
    case = between_all(ragged(LOSSLESS, model.shape))
    prefill, store = prefill_in_process(case, model)
    own = len(case.tokens()[0]) + len(case.tokens()[2])
    for number, layer in enumerate(prefill.cache.layers):
        came = [store.rows(index, number).counts for index in range(3)]
        assert layer.others is not None
        assert layer.others.counts == tuple(map(sum, zip(*came, strict=True)))
        assert layer.keys.shape[2] == own
        assert layer.others.keys.shape == layer.others.values.shape
        assert len(layer.others.keys) == sum(layer.others.counts)
    assert prefill.cache.layers[0].others is not None
    assert prefill.cache.layers[0].others.counts[0] == 0


def test_where_heads_receive_the_same_rows_they_are_joined_in_token_order(
    model: LoadedModel,
) -> None:
    half = between_all(replace(LOSSLESS, keep_ratio=0.5, selector="random"))
    for case in (between_all(LOSSLESS), half):
        prefill, _ = prefill_in_process(case, model)
        assert not any(is_ragged(prefill))
        for layer in prefill.cache.layers:
            assert layer.positions.tolist() == sorted(layer.positions.tolist())


def test_a_cache_is_cut_whatever_heads_received(model: LoadedModel) -> None:
    """A publisher goes on from its rows before the question, and forgets what it decoded."""
    case = between_all(ragged(LOSSLESS, model.shape))
    prefill, _ = prefill_in_process(case, model)
    publisher, question = case.layout().publisher, case.tokens()[2]
    once = answer_log_probs(model, prefill, [5, 9])
    torch.testing.assert_close(answer_log_probs(model, prefill, [5, 9]), once, atol=0, rtol=0)
    known = prefill.cache.rows_before(len(question) - 1)
    again = Prefiller(model).resume(publisher, question[1:], known)
    torch.testing.assert_close(again.logits, prefill.logits, atol=TOLERANCE, rtol=0)
    for layer in prefill.cache.layers:
        alone = layer.before(len(case.tokens()[0]))
        assert alone.others is None
        assert layer.before(prefill.next_position).others is layer.others


def test_half_precision_stays_near_its_own_oracle() -> None:
    half = wrap_model(tiny_network("llama").to(torch.bfloat16), "0" * 64)
    case = between_all(ragged(LOSSLESS, half.shape))
    prefill, _ = prefill_in_process(case, half)
    full, _ = prefill_in_process(case, tiny_model("llama"))
    assert all(is_ragged(prefill))
    torch.testing.assert_close(prefill.logits, full.logits, atol=0.5, rtol=0)
