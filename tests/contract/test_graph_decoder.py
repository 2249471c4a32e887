"""The decoder by graphs against the blocks of transformers: in float32 only rows are rounded."""

import weakref
from dataclasses import replace

import pytest
import torch

from fedattn.core.errors import ModelError
from fedattn.core.sampling import SamplingParams
from fedattn.model import graph_decoder
from fedattn.model.decode import answer_log_probs, generate_tokens
from fedattn.model.graph_decoder import GraphDecoder
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult
from tests.harness.learned import ragged
from tests.harness.runners import prefill_in_process
from tests.harness.scenarios import LOSSLESS, SCENARIOS
from tests.harness.tiny import ALL_FAMILIES, FAMILIES, tiny_model

NUM_TOKENS = 8
NEAR = 5e-4
"""Nats, where rows are rounded to 11 bits."""


def prefills(model: LoadedModel) -> list[PrefillResult]:
    """Of answers that differ in length, and of which one has heads with rows of their own."""
    compression = replace(ragged(LOSSLESS, model.shape), least_rows=8)
    cases = [SCENARIOS[1], replace(SCENARIOS[3], compression=compression), SCENARIOS[12]]
    return [prefill_in_process(case, model)[0] for case in cases]


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_every_family_gives_the_distributions_of_its_blocks(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows leave windows, and graphs are drawn anew, while the answers are decoded."""
    monkeypatch.setattr(graph_decoder, "_AHEAD", 3)
    model = tiny_model(family)
    decoder = GraphDecoder(model)
    tokens = [5, 9, 60, 1, 2, 90, 33, 4]
    for prefill in prefills(model):
        state = decoder.begin(prefill, NUM_TOKENS)
        logits = torch.stack([decoder.step([state], [token])[0] for token in tokens])
        expected = answer_log_probs(model, prefill, [*tokens, 0])[1:]
        divergence = (expected.exp() * (expected - logits.log_softmax(-1))).sum(dim=-1)
        assert float(divergence.max()) < NEAR


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_in_one_batch_are_bit_for_bit_those_of_each_alone(family: str) -> None:
    """They begin at different steps, and one ends before the others."""
    model = tiny_model(family)
    decoder, starts = GraphDecoder(model), prefills(model)
    alone = []
    for prefill in starts:
        state = decoder.begin(prefill, NUM_TOKENS)
        alone.append([decoder.step([state], [token])[0] for token in range(NUM_TOKENS)])
    states = [decoder.begin(prefill, NUM_TOKENS) for prefill in starts]
    at = [0, 0, 0]
    for taking_part in ([1], [0, 1], [0, 1, 2], [0, 1, 2], [2, 0], [0, 1, 2], [2]):
        logits = decoder.step(
            [states[one] for one in taking_part], [at[one] for one in taking_part]
        )
        for one, row in zip(taking_part, logits, strict=True):
            assert torch.equal(row, alone[one][at[one]])
            at[one] += 1


def test_more_answers_than_one_graph_takes_are_those_of_each_alone() -> None:
    model = tiny_model("llama")
    decoder, prefill = GraphDecoder(model), prefills(model)[0]
    alone = decoder.begin(prefill, 2)
    states = [decoder.begin(prefill, 2) for _ in range(19)]
    for token in (5, 9):
        expected = decoder.step([alone], [token])
        assert torch.equal(decoder.step(states, [token] * 19), expected.expand(19, -1))


def test_rows_are_gone_with_their_answer_whoever_comes_first_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graph_decoder, "_MOST_ANSWERS", 2)
    model = tiny_model("llama")
    decoder, prefill = GraphDecoder(model), prefills(model)[0]
    states = [decoder.begin(prefill, 4) for _ in range(4)]
    rows = [weakref.ref(state.blocks[0].keys) for state in states]
    decoder.step(states, [5] * 4)  # the first with the second, the third with the fourth
    del states[3], states[1]
    decoder.step(states, [9] * 2)
    assert [ref() is not None for ref in rows] == [True, False, True, False]


def test_threads_share_the_work_and_change_nothing() -> None:
    model = tiny_model("qwen2")
    decoder, prefill = GraphDecoder(model), prefills(model)[1]
    states = [decoder.begin(prefill, 4) for _ in range(2)]
    before = torch.get_num_threads()
    for token in (5, 9, 60, 1):
        torch.set_num_threads(2)
        shared = decoder.step(states[:1], [token])
        torch.set_num_threads(1)
        assert torch.equal(shared, decoder.step(states[1:], [token]))
    torch.set_num_threads(before)


def test_decoding_leaves_the_prefill_as_it_was() -> None:
    model = tiny_model("llama")
    prefill, decoder = prefills(model)[0], GraphDecoder(model)
    sampling = SamplingParams.most_likely(NUM_TOKENS)
    once = list(generate_tokens(model, prefill, sampling, lambda: decoder))
    assert once == list(generate_tokens(model, prefill, sampling, lambda: decoder))


@pytest.mark.parametrize("name", ["keys", "values"])
@pytest.mark.parametrize("scalar", [65_536.0, -1e6, torch.nan])
def test_rows_that_half_precision_cannot_hold_are_refused(name: str, scalar: float) -> None:
    model = tiny_model("llama")
    prefill = prefills(model)[1]  # heads with rows of their own
    with torch.inference_mode():
        getattr(prefill.cache.layers[2], name)[0, 1, 0, 3] = scalar
    with pytest.raises(ModelError, match=f"{name} of block 2: .* at most 65504.*decode-weights"):
        GraphDecoder(model).begin(prefill, NUM_TOKENS)
