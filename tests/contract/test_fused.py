"""The lean decoder against the oracle, and int8 against float32."""

from dataclasses import replace

import pytest
import torch

from fedattn.core.plans import PlanSpec, RolePlans
from fedattn.core.sampling import SamplingParams
from fedattn.core.spans import build_layout
from fedattn.model import roomy_rows
from fedattn.model.decode import generate_tokens
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.fused import DECODE_FORMATS, FLOAT32, INT8, FusedDecoder
from fedattn.model.loading import LoadedModel, wrap_model
from fedattn.model.packing import pack_int8
from fedattn.model.prefill import Prefiller, PrefillResult, forward_tokens
from fedattn.research.oracle import oracle_greedy, oracle_logits
from tests.harness.learned import ragged
from tests.harness.runners import prefill_in_process
from tests.harness.scenarios import LOSSLESS, SCENARIOS, Scenario
from tests.harness.tiny import ALL_FAMILIES, FAMILIES, UNLIKE_FAMILIES, tiny_model, tiny_network

NUM_TOKENS = 8


@pytest.fixture(scope="module", params=UNLIKE_FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


def prefilled(scenario: Scenario, model: LoadedModel) -> PrefillResult:
    return prefill_in_process(scenario, model)[0]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_float32_gives_the_oracles_logits_and_tokens(
    scenario: Scenario, model: LoadedModel
) -> None:
    equals_the_oracle(scenario, model)


@pytest.mark.parametrize("most_padding", [0, roomy_rows._MOST_PADDING])
@pytest.mark.parametrize("case", [SCENARIOS[3], SCENARIOS[12]], ids=lambda case: case.name)
@pytest.mark.parametrize("family", sorted(set(ALL_FAMILIES) - set(FAMILIES)))
def test_every_other_family_gives_the_oracles_logits_and_tokens(
    family: str, case: Scenario, most_padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows leave the windows of blocks while the answer is decoded."""
    monkeypatch.setattr(roomy_rows, "_MOST_PADDING", most_padding)
    equals_the_oracle(case, tiny_model(family))


def equals_the_oracle(scenario: Scenario, model: LoadedModel) -> None:
    layout, joined = scenario.layout(), scenario.joined()
    prefill = prefilled(scenario, model)
    decoder = FusedDecoder(model, FLOAT32)
    greedy = oracle_greedy(model, layout, joined, NUM_TOKENS)
    state = decoder.begin(prefill, NUM_TOKENS)
    for count, token in enumerate(greedy, start=1):
        logits = decoder.step([state], [token])[0]
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
        logits.append(decoder.step([state], [5])[0])
    difference = (logits[0] - logits[1]).norm() / logits[0].norm()
    assert 0 < float(difference) < 0.1


@pytest.mark.parametrize("family", UNLIKE_FAMILIES)
def test_int8_of_a_model_in_half_precision_stays_near_its_blocks(family: str) -> None:
    half = wrap_model(tiny_network(family).to(torch.bfloat16), "f" * 64)
    prefill = prefilled(SCENARIOS[1], half)
    decoder = FusedDecoder(half, INT8)
    state = decoder.begin(prefill, 1)
    lean = decoder.step([state], [5])[0]
    with torch.inference_mode():
        hidden = forward_tokens(half, prefill.cache, [5], [prefill.next_position])
        blocks = half.head(hidden)[0].float()
    assert float((lean - blocks).norm() / blocks.norm()) < 0.2  # some processors round to 7 bits


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
    exchange = InProcessExchange(KvStore(layout, model.shape, model.rotaries), 0)
    prefill = Prefiller(model).publish(layout.publisher, [], [1, 2, 3, 4], exchange)
    decoder = FusedDecoder(model, INT8)
    assert (
        len(
            list(generate_tokens(model, prefill, SamplingParams(max_new_tokens=3), lambda: decoder))
        )
        == 3
    )


def several(model: LoadedModel) -> list[PrefillResult]:
    """Of answers that differ in length, and of which one has heads with rows of their own."""
    compression = replace(ragged(LOSSLESS, model.shape), least_rows=8)
    cases = [SCENARIOS[1], replace(SCENARIOS[3], compression=compression), SCENARIOS[2]]
    return [prefilled(case, model) for case in cases]


@pytest.mark.parametrize("most_padding", [0, roomy_rows._MOST_PADDING])
def test_answers_in_one_batch_are_those_of_each_alone(
    most_padding: int, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They begin at different steps, and one ends before the others."""
    monkeypatch.setattr(roomy_rows, "_MOST_PADDING", most_padding)
    prefills = several(model)
    decoder = FusedDecoder(model, FLOAT32)
    alone = []
    for prefill in prefills:
        state = decoder.begin(prefill, NUM_TOKENS)
        alone.append([decoder.step([state], [token])[0] for token in range(NUM_TOKENS)])
    states = [decoder.begin(prefill, NUM_TOKENS) for prefill in prefills]
    at = [0, 0, 0]
    for taking_part in ([1], [0, 1], [0, 1, 2], [0, 1, 2], [2, 0], [2]):
        logits = decoder.step(
            [states[one] for one in taking_part], [at[one] for one in taking_part]
        )
        for one, row in zip(taking_part, logits, strict=True):
            torch.testing.assert_close(row, alone[one][at[one]], atol=1e-4, rtol=0)
            at[one] += 1
    assert [
        state.position - prefill.next_position
        for state, prefill in zip(states, prefills, strict=True)
    ] == at


def test_int8_rounds_each_answer_for_itself() -> None:
    """A companion with large activations leaves the others as fine as alone."""
    pack = pack_int8([torch.nn.Linear(64, 32)])
    with torch.inference_mode():
        quiet, loud = torch.randn(2, 1, 64, generator=torch.Generator().manual_seed(1))
        alone, beside = pack(quiet), pack(torch.cat([quiet, 1000 * loud]))[:1]
    assert float((beside - alone).norm() / alone.norm()) < 0.05
