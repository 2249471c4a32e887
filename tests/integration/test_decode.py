"""Decoding: against transformers, and text streaming."""

from dataclasses import replace

import pytest
import torch

from fedattn.core.errors import ModelError
from fedattn.core.sampling import SamplingParams
from fedattn.model.decode import TokenChooser, answer_nll, generate_tokens
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.prefill import Prefiller, PrefillResult
from tests.harness.scenarios import Scenario
from tests.harness.tiny import FAMILIES, tiny_model, tiny_network


def prefill_alone(family: str) -> tuple[Prefiller, PrefillResult, list[int]]:
    """A publisher without contributors: plain causal attention."""
    scenario = Scenario(name="", contexts=(), plan="all", publisher_plan="all")
    prefix, _, question = scenario.tokens()
    prefiller = Prefiller(tiny_model(family))
    layout = scenario.layout()
    store = KvStore(layout, prefiller.shape, prefiller.model.rotaries)
    exchange = InProcessExchange(store, 0)
    return (
        prefiller,
        prefiller.publish(layout.publisher, prefix, question, exchange),
        (prefix + question),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_tokens_equal_transformers_generate(family: str) -> None:
    prefiller, prefill, prompt = prefill_alone(family)
    ours = list(generate_tokens(prefiller.model, prefill, SamplingParams.most_likely(12)))
    ids = torch.tensor([prompt])
    plain = tiny_network(family)
    theirs = plain.generate(  # type: ignore[operator]
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
    )
    assert ours == theirs[0, len(prompt) :].tolist()


@pytest.mark.parametrize("answer", [[5], [5, 9, 11, 40]])
def test_nll_equals_plain_transformers_and_leaves_the_cache_alone(answer: list[int]) -> None:
    prefiller, prefill, prompt = prefill_alone("llama")
    nll = answer_nll(prefiller.model, prefill, answer)
    with torch.inference_mode():
        logits = tiny_network("llama")(torch.tensor([prompt + answer])).logits[0]
    target = torch.tensor(answer)
    expected = torch.nn.functional.cross_entropy(logits[len(prompt) - 1 : -1], target)
    assert nll == pytest.approx(float(expected), abs=1e-4)
    after = list(generate_tokens(prefiller.model, prefill, SamplingParams.most_likely(6)))
    _, fresh, _ = prefill_alone("llama")
    assert after == list(generate_tokens(prefiller.model, fresh, SamplingParams.most_likely(6)))


PLAIN = SamplingParams.most_likely(1)


def draws(sampling: SamplingParams, count: int = 200) -> list[int]:
    chooser = TokenChooser(sampling, torch.device("cpu"))
    logits = torch.tensor([0.0, 1.0, 2.0, 3.0])
    return [chooser.choose(logits) for _ in range(count)]


def test_greedy_takes_the_most_likely() -> None:
    assert set(draws(PLAIN)) == {3}


@pytest.mark.parametrize("sampling", [PLAIN, replace(PLAIN, temperature=1.0, top_k=2)])
@pytest.mark.parametrize("logits", [[1.0, torch.nan], [1.0, torch.inf], [-torch.inf] * 2])
def test_no_token_is_chosen_by_what_is_no_number(
    sampling: SamplingParams, logits: list[float]
) -> None:
    chooser = TokenChooser(sampling, torch.device("cpu"))
    with pytest.raises(ModelError, match=r"after 0 tokens .* expected finite numbers.*--weights"):
        chooser.choose(torch.tensor(logits))


def test_seed_decides_the_draw() -> None:
    assert draws(replace(PLAIN, temperature=1.0, seed=1)) == draws(
        replace(PLAIN, temperature=1.0, seed=1)
    )
    assert draws(replace(PLAIN, temperature=1.0, seed=1)) != draws(
        replace(PLAIN, temperature=1.0, seed=2)
    )


def test_top_k_keeps_k_tokens() -> None:
    assert set(draws(replace(PLAIN, temperature=5.0, top_k=2))) == {2, 3}


def test_top_p_keeps_the_smallest_set_with_that_mass() -> None:
    assert set(draws(replace(PLAIN, temperature=1.0, top_p=0.6))) == {3}


def test_high_temperature_reaches_every_token() -> None:
    assert set(draws(replace(PLAIN, temperature=10.0))) == {0, 1, 2, 3}
