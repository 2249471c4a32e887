"""Parity on the embedded model's real weights, over every implementation."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from fedattn.model.attribution import attribute_answer
from fedattn.model.likelihood import log_probs_alone, log_probs_of
from fedattn.model.loading import LoadedModel, load_model, load_tokenizer
from fedattn.model.prepare import PreparedModel, prepare_model, weights_folder
from fedattn.model.prompt import PromptTokenizer
from fedattn.model.support import copying_attention, gain_from_others
from fedattn.model.weights.choice import FLOAT32_WEIGHTS, STORED_WEIGHTS
from fedattn.research.oracle import oracle_greedy, oracle_logits
from tests.harness.runners import RUNNERS, prefill_in_process
from tests.harness.scenarios import NUM_NEW_TOKENS, Scenario

TOLERANCE = 1e-4
PLANS = {"all": ("all", "all"), "most": ("1-29", "1-29"), "mixed": ("3,9-12", "5-20")}


@pytest.fixture(scope="module")
def prepared() -> PreparedModel:
    return prepare_model("default")


@pytest.fixture(scope="module")
def model(prepared: PreparedModel) -> LoadedModel:
    return load_model(prepared)


def make_scenario(prepared: PreparedModel, model: LoadedModel, name: str) -> Scenario:
    plan, publisher_plan = PLANS[name]
    return Scenario(
        name=name,
        contexts=(
            "Harbour log. The ship Aurora arrived this morning and lies at pier 4.",
            "Customs. The ship Aurora carries 300 boxes of tea.",
        ),
        question="What does the ship Aurora carry, and at which pier does it lie?",
        plan=plan,
        publisher_plan=publisher_plan,
        num_layers=model.shape.num_layers,
        tokenizer=PromptTokenizer(load_tokenizer(prepared)),
    )


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("runner", RUNNERS)
async def test_real_weights_give_the_oracles_logits_and_tokens(
    runner: str, plans: str, prepared: PreparedModel, model: LoadedModel, tmp_path: Path
) -> None:
    scenario = make_scenario(prepared, model, plans)
    outcome = await RUNNERS[runner](scenario, model, tmp_path)
    layout, joined = scenario.layout(), scenario.joined()
    expected = oracle_logits(model, layout, joined, [])[-1]
    torch.testing.assert_close(outcome.logits, expected, atol=TOLERANCE, rtol=0)
    assert outcome.generated == oracle_greedy(model, layout, joined, NUM_NEW_TOKENS)


async def test_all_layers_equal_plain_transformers_on_real_weights(
    prepared: PreparedModel, model: LoadedModel, tmp_path: Path
) -> None:
    scenario = make_scenario(prepared, model, "all")
    outcome = await RUNNERS["gRPC"](scenario, model, tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(weights_folder(prepared, FLOAT32_WEIGHTS))
    with torch.inference_mode():
        expected = plain(torch.tensor([scenario.joined()])).logits[0, -1]
    torch.testing.assert_close(outcome.logits, expected, atol=TOLERANCE, rtol=0)


async def test_blocks_as_stored_equal_their_floats_over_the_network(
    prepared: PreparedModel, model: LoadedModel, tmp_path: Path
) -> None:
    blocks = load_model(prepared, STORED_WEIGHTS)
    scenario = make_scenario(prepared, blocks, "all")
    outcome = await RUNNERS["gRPC"](scenario, blocks, tmp_path)
    layout, joined = scenario.layout(), scenario.joined()
    expected = oracle_logits(model, layout, joined, [])[-1]
    torch.testing.assert_close(outcome.logits, expected, atol=TOLERANCE, rtol=0)
    assert outcome.generated == oracle_greedy(model, layout, joined, NUM_NEW_TOKENS)


@pytest.mark.parametrize(("answer", "source"), [("pier 4.", 0), ("300 boxes of tea.", 1)])
def test_an_answer_is_drawn_from_the_text_that_has_it(
    answer: str, source: int, prepared: PreparedModel, model: LoadedModel
) -> None:
    scenario = make_scenario(prepared, model, "all")
    prefill, _ = prefill_in_process(scenario, model)
    layout, token_ids = scenario.layout(), scenario.tokenizer.plain(answer)
    passages = [member.span for member in layout.contributors]
    found = attribute_answer(model, prefill, token_ids, passages, layout.publisher.plan.layers)
    assert found.shares[source] > 0.8
    assert copying_attention(found) > 0.5
    own = (layout.publisher.span, scenario.tokens()[2])
    alone = log_probs_alone(model, prefill, own, token_ids, layout.prefix_len)
    decoded = log_probs_of(model, prefill, token_ids)
    assert gain_from_others(decoded, alone) > 0.5
