"""The lean decoder against the oracle, and int8 against float32."""

import pytest
import torch

from fedattn.core.plans import PlanSpec, RolePlans
from fedattn.core.sampling import SamplingParams
from fedattn.core.spans import build_layout
from fedattn.model.decode import generate_tokens
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.fused import DECODE_FORMATS, FLOAT32, INT8, FusedDecoder
from fedattn.model.loading import LoadedModel, wrap_model
from fedattn.model.prefill import Prefiller, PrefillResult, forward_tokens
from fedattn.research.oracle import oracle_greedy, oracle_logits
from tests.harness.runners import prefill_in_process
from tests.harness.scenarios import SCENARIOS, Scenario
from tests.harness.tiny import FAMILIES, tiny_model, tiny_network

NUM_TOKENS = 8


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


def prefilled(scenario: Scenario, model: LoadedModel) -> PrefillResult:
    return prefill_in_process(scenario, model)[0]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_float32_gives_the_oracles_logits_and_tokens(
    scenario: Scenario, model: LoadedModel
) -> None:
    layout, joined = scenario.layout(), scenario.joined()
    prefill = prefilled(scenario, model)
    decoder = FusedDecoder(model, FLOAT32)
    greedy = oracle_greedy(model, layout, joined, NUM_TOKENS)
    state = decoder.begin(prefill, NUM_TOKENS)
    for count, token in enumerate(greedy, start=1):
        logits = decoder.step(state, token)
        expected = oracle_logits(model, layout, joined, greedy[:count])[-1]
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)
    sampling = SamplingParams.most_likely(NUM_TOKENS)
    assert list(generate_tokens(model, prefill, sampling, lambda: decoder)) == greedy


def test_int8_stays_near_float32(model: LoadedModel) -> None:
    prefill = prefilled(SCENARIOS[1], model)
    logits = []
    for weights in DECODE_FORMATS:
        decoder = FusedDecoder(model, weights)
        state = decoder.begin(prefill, 1)
        logits.append(decoder.step(state, 5))
    difference = (logits[0] - logits[1]).norm() / logits[0].norm()
    assert 0 < float(difference) < 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_of_a_model_in_half_precision_stays_near_its_blocks(family: str) -> None:
    half = wrap_model(tiny_network(family).to(torch.bfloat16), "f" * 64)
    prefill = prefilled(SCENARIOS[1], half)
    decoder = FusedDecoder(half, INT8)
    state = decoder.begin(prefill, 1)
    lean = decoder.step(state, 5)
    with torch.inference_mode():
        hidden = forward_tokens(half, prefill.cache, [5], [prefill.next_position])
        blocks = half.head(hidden)[0].float()
    assert float((lean - blocks).norm() / blocks.norm()) < 0.1


@pytest.mark.parametrize("weights", DECODE_FORMATS)
def test_decoding_leaves_the_prefill_as_it_was(weights: str, model: LoadedModel) -> None:
    prefill = prefilled(SCENARIOS[1], model)
    decoder = FusedDecoder(model, weights)
    sampling = SamplingParams.most_likely(NUM_TOKENS)
    once = list(generate_tokens(model, prefill, sampling, lambda: decoder))
    again = list(generate_tokens(model, prefill, sampling, lambda: decoder))
    assert once == again


def test_a_decoder_of_an_unknown_format_is_a_defect(model: LoadedModel) -> None:
    with pytest.raises(KeyError):
        FusedDecoder(model, "int3")


def test_plans_without_exchange_decode_too(model: LoadedModel) -> None:
    none = PlanSpec("none").resolve(model.shape.num_layers)
    layout = build_layout(
        num_layers=model.shape.num_layers,
        prefix_len=0,
        contributors=[],
        publisher=("publisher", 4),
        plans=RolePlans(contributors=none, publisher=none),
    )
    exchange = InProcessExchange(KvStore(layout, model.shape, model.rotary), 0)
    prefill = Prefiller(model).publish(layout.publisher, [], [1, 2, 3, 4], exchange)
    decoder = FusedDecoder(model, INT8)
    assert (
        len(
            list(generate_tokens(model, prefill, SamplingParams(max_new_tokens=3), lambda: decoder))
        )
        == 3
    )
