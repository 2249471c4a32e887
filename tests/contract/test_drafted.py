"""Answers with drafts are those of decoding token by token."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch

from fedattn.core.sampling import SamplingParams
from fedattn.model.decode import generate_tokens
from fedattn.model.draft_pace import DraftPace
from fedattn.model.drafted import DraftCounts, generate_drafted
from fedattn.model.files import ModelFiles
from fedattn.model.loading import LoadedModel, wrap_model
from fedattn.model.prefill import forward_tokens
from fedattn.model.weights.direct import DirectProducts
from fedattn.model.weights.formats import BlockFormat
from fedattn.model.weights.ggml import ggml
from fedattn.model.weights.graphs import Draft
from fedattn.model.weights.modules import direct_products
from fedattn.model.weights.network import blocks_network, bring_to_blocks, empty_network
from fedattn.model.weights.stored import BLOCKS_FILE, write_tensors
from fedattn.research.oracle import oracle_greedy
from tests.harness.runners import prefill_in_process
from tests.harness.scenarios import ASKED_SCENARIOS, SCENARIOS, Scenario
from tests.harness.tiny import ALL_FAMILIES, tiny_model, tiny_network

NUM_TOKENS = 14
PLAIN = SamplingParams.most_likely(NUM_TOKENS)
WARM = replace(PLAIN, temperature=0.8)
SETTINGS = (
    replace(PLAIN, repetition_penalty=1.6),
    replace(PLAIN, no_repeat_ngram_size=2),
    WARM,
    replace(WARM, top_p=0.7, seed=3),
    replace(WARM, top_k=5, repetition_penalty=1.3, no_repeat_ngram_size=3, seed=9),
)
ASKED = ASKED_SCENARIOS


class Always(DraftPace):
    """As many drafts, whatever they cost."""

    def __init__(self, num_drafts: int) -> None:
        super().__init__()
        self._num_drafts = num_drafts

    def choose(self, most: int) -> int:
        return min(self._num_drafts, most)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return tiny_model("llama")


@pytest.fixture(scope="module")
def blocks_model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("blocks")
    sizes = {"hidden_size": 64, "num_attention_heads": 8, "intermediate_size": 96}
    network: Any = tiny_network("llama", **sizes)
    write_tensors(bring_to_blocks(network, BlockFormat.Q4_0), folder / BLOCKS_FILE)
    files = ModelFiles(name="tiny", location=folder, remedy="make it again")
    return wrap_model(blocks_network(files, empty_network(files, network.config)), "f" * 64)


def undrafted(model: LoadedModel, scenario: Scenario, sampling: SamplingParams) -> list[int]:
    return list(generate_tokens(model, prefill_in_process(scenario, model)[0], sampling))


def drafted(
    model: LoadedModel, scenario: Scenario, sampling: SamplingParams, num_drafts: int
) -> tuple[list[int], DraftCounts]:
    prefill, counts = prefill_in_process(scenario, model)[0], DraftCounts()
    pace = Always(num_drafts)
    tokens = list(generate_drafted(model, prefill, sampling, pace=pace, counts=counts))
    rows = prefill.cache.layers[0].positions
    assert int(rows[-1]) == prefill.next_position + len(tokens) - 2  # of all but the last token
    assert len(set(rows.tolist())) == len(rows)
    return tokens, counts


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_greedy_answers_are_the_oracles(family: str) -> None:
    model, scenario = tiny_model(family), ASKED[ALL_FAMILIES.index(family) % len(ASKED)]
    expected = oracle_greedy(model, scenario.layout(), scenario.joined(), NUM_TOKENS)
    tokens, counts = drafted(model, scenario, PLAIN, num_drafts=3)
    assert tokens == expected == undrafted(model, scenario, PLAIN)
    assert counts.passes + counts.accepted >= NUM_TOKENS - 1


@pytest.mark.parametrize("num_drafts", [0, 1, 5])
@pytest.mark.parametrize("sampling", SETTINGS)
def test_any_sampling_gives_the_tokens_of_no_drafts(
    sampling: SamplingParams, num_drafts: int, model: LoadedModel
) -> None:
    scenario = ASKED[num_drafts % len(ASKED)]
    expected = undrafted(model, scenario, sampling)
    assert drafted(model, scenario, sampling, num_drafts)[0] == expected


@pytest.mark.parametrize("sampling", [PLAIN, WARM])
def test_weights_in_blocks_give_the_same_tokens_with_any_number_of_drafts(
    sampling: SamplingParams, blocks_model: LoadedModel
) -> None:
    """They round to 8 bits, so a token must be the same to the bit in a pass of any size."""
    expected = drafted(blocks_model, ASKED[1], sampling, 0)[0]
    for num_drafts in (1, 4, 8):
        assert drafted(blocks_model, ASKED[1], sampling, num_drafts)[0] == expected


@torch.inference_mode()
def test_a_token_is_the_same_to_the_bit_in_a_pass_of_any_size(blocks_model: LoadedModel) -> None:
    cache = prefill_in_process(ASKED[2], blocks_model)[0].cache
    start, tokens = int(cache.layers[0].positions[-1]) + 1, [5, 17, 80, 3, 3, 41, 9, 60, 2]
    with direct_products(DirectProducts()):
        positions = range(start, start + len(tokens))
        together = forward_tokens(blocks_model, cache, tokens, positions)
        cache.drop_last(len(tokens))
        alone = [
            forward_tokens(blocks_model, cache, [token], [at])
            for token, at in zip(tokens, positions, strict=True)
        ]
    assert torch.equal(together, torch.cat(alone))


def test_graphs_are_drawn_once_an_answer_and_gone_with_it(
    blocks_model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, drawn = ggml().graphs, []
    draw = library.draw

    def noted(draft: Draft) -> Callable[[int], None]:
        run = draw(draft)
        drawn.append(weakref.ref(run))
        return run

    monkeypatch.setattr(library, "draw", noted)
    prefill = prefill_in_process(ASKED[1], blocks_model)[0]
    answer = generate_drafted(blocks_model, prefill, PLAIN, pace=Always(0))
    assert next(answer) >= 0
    assert next(answer) >= 0
    num_matrices = len(drawn)
    assert next(answer) >= 0
    assert len(drawn) == num_matrices > 0
    assert all(graph() for graph in drawn)
    answer.close()
    assert not any(graph() for graph in drawn)


def test_drafts_that_are_right_save_passes(model: LoadedModel) -> None:
    """With nobody to ask, drafts are the answer itself, by any seed."""
    for sampling in (PLAIN, WARM):
        tokens, counts = drafted(model, SCENARIOS[2], sampling, num_drafts=4)
        assert tokens == undrafted(model, SCENARIOS[2], sampling)
        assert counts.accepted == counts.drafted
        assert counts.passes == -(-(NUM_TOKENS - 1) // 5)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_short_answers_have_no_token_too_many(most: int, model: LoadedModel) -> None:
    sampling = replace(PLAIN, max_new_tokens=most)
    prefill = prefill_in_process(ASKED[0], model)[0]
    assert len(list(generate_drafted(model, prefill, sampling, pace=Always(8)))) == most


@pytest.mark.parametrize(("place", "num_drafts"), [(0, 2), (1, 0), (2, 2), (3, 6), (4, 3), (5, 2)])
def test_answers_end_before_an_end_token(place: int, num_drafts: int, model: LoadedModel) -> None:
    scenario = ASKED[1]
    ending = undrafted(model, scenario, WARM)[place]
    ended = replace(model, end_token_ids=frozenset({ending}))
    expected = undrafted(ended, scenario, WARM)
    prefill = prefill_in_process(scenario, ended)[0]
    assert list(generate_drafted(ended, prefill, WARM, pace=Always(num_drafts))) == expected


def test_what_is_left_unread_leaves_a_cache_that_others_may_go_on_with(model: LoadedModel) -> None:
    scenario = ASKED[0]
    prefill = prefill_in_process(scenario, model)[0]
    answer = generate_drafted(model, prefill, PLAIN, pace=Always(5))
    begun = [token for token, _ in zip(answer, range(4), strict=False)]
    assert begun == undrafted(model, scenario, PLAIN)[:4]
    rows = prefill.cache.layers[0].positions
    assert len(set(rows.tolist())) == len(rows)


def test_measured_times_decide_how_many_are_drafted(model: LoadedModel) -> None:
    """A clock that stands still while drafting: passes cost all, so drafts are many."""
    scenario, ticks = ASKED[0], count()
    sampling = replace(PLAIN, max_new_tokens=60)
    prefill, counts = prefill_in_process(scenario, model)[0], DraftCounts()
    clock = lambda: float(next(ticks) // 3)  # noqa: E731 - begin, drafted, done
    list(generate_drafted(model, prefill, sampling, counts=counts, clock=clock))
    assert counts.passes < 59
