"""Attacks recover what they should on a tiny random model, and no more."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import ContextTooLongError, InvalidRequestError
from fedattn.core.plans import SyncPlan
from fedattn.core.types import KvRows
from fedattn.model.cache import FederatedCache
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import Prefiller, forward_tokens
from fedattn.research.leak.attacks import Effort, look_up, replay
from fedattn.research.leak.candidates import candidate_rows, distances, ranked
from fedattn.research.leak.received import (
    Received,
    Sending,
    TokenRows,
    add_noise,
    by_token,
    noisy_exchange,
    receive_rows,
)
from fedattn.research.leak.repeat import common_length, repeat
from tests.harness.learned import ragged, random_scorer
from tests.harness.tiny import FAMILIES, VOCABULARY, tiny_model, word_tokenizer

PREFIX = [1, 2, 3]
TEXT = [5, 40, 7, 88, 7, 61, 13, 29, 54, 2]
RAW = Compression(codec=codec_by_name("fp32"))
EVERYTHING = Effort()


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


def received(
    model: LoadedModel, *layers: int, compression: Compression = RAW, noise: float = 0.0
) -> Received:
    sending = Sending(
        plan=SyncPlan(layers), compression=compression, make_exchange=noisy_exchange(noise, 0)
    )
    return receive_rows(Prefiller(model), PREFIX, TEXT, sending)


@pytest.mark.parametrize("layer", [0, 2, 4])
def test_replay_finds_every_token_behind_a_raw_codec(model: LoadedModel, layer: int) -> None:
    recovery = replay(model, received(model, layer), EVERYTHING)
    assert recovery.found == tuple(TEXT)
    assert min(recovery.gaps) > 0.99


def test_look_up_finds_every_token_at_block_0(model: LoadedModel) -> None:
    recovery = look_up(model, received(model, 0, 3))
    assert recovery is not None
    assert recovery.found == tuple(TEXT)


def test_look_up_needs_block_0(model: LoadedModel) -> None:
    assert look_up(model, received(model, 1, 3)) is None


def test_default_codec_does_not_stop_a_replay(model: LoadedModel) -> None:
    recovery = replay(model, received(model, 1, compression=Compression()), EVERYTHING)
    assert recovery.num_right == len(TEXT)


def test_missing_rows_are_guessed_and_cost_tokens() -> None:
    model = tiny_model("llama")
    half = received(model, 2, compression=replace(RAW, keep_ratio=0.5))
    recovery = replay(model, half, EVERYTHING)
    assert len(recovery.gaps) == 5
    assert 0 < recovery.num_right < len(TEXT)
    assert max(recovery.gaps[1:]) < 0.99  # behind a wrong guess nothing fits exactly


def test_rows_of_several_blocks_fill_each_others_gaps() -> None:
    model = tiny_model("llama")
    half = received(model, 1, 2, 3, 4, compression=replace(RAW, keep_ratio=0.5, selector="random"))
    one, four = (replay(model, half, Effort(num_blocks=count)) for count in (1, 4))
    assert len(four.gaps) > len(one.gaps)
    assert four.num_right > one.num_right


def test_rows_of_some_heads_are_enough() -> None:
    """At block 0 one head keeps some rows, and the other none; values are refitted."""
    model = tiny_model("llama")
    sending = Sending(
        plan=SyncPlan((0,)), compression=ragged(RAW, model.shape), scorer=random_scorer(model.shape)
    )
    rows = receive_rows(Prefiller(model), PREFIX, TEXT, sending)
    tokens = by_token(rows.rows[0])
    assert {token.heads.tolist() == [1] for token in tokens.values()} == {True}
    recovery = look_up(model, rows)
    assert recovery is not None
    assert 0 < len(recovery.gaps) == len(tokens) < len(TEXT)
    places = [position - len(PREFIX) for position in tokens]
    assert [recovery.found[place] for place in places] == [TEXT[place] for place in places]


def test_noise_large_enough_leaves_nothing_to_find() -> None:
    model = tiny_model("llama")
    recovery = replay(model, received(model, 2, noise=30.0), EVERYTHING)
    assert recovery.num_right <= 2


def test_without_the_tokens_before_less_is_found_from_the_middle() -> None:
    model = tiny_model("llama")
    recovery = replay(model, received(model, 4), EVERYTHING, skip=5)
    assert recovery.truth == tuple(TEXT[5:])
    assert len(recovery.found) == 5
    assert max(recovery.gaps) < 0.99


def test_only_candidates_can_be_found() -> None:
    model = tiny_model("llama")
    recovery = replay(model, received(model, 2), Effort(num_candidates=2))
    assert recovery.num_right < len(TEXT)


def test_candidates_have_the_rows_of_a_forward_pass(model: LoadedModel) -> None:
    cache = FederatedCache(model.windows, model.device)
    with torch.inference_mode():
        forward_tokens(model, cache, PREFIX, range(3))
        known = cache.layers
        computed = candidate_rows(model, known, torch.arange(VOCABULARY), 5, [1, 4])
        forward_tokens(model, cache, [42], [5])
    for layer in (1, 4):
        rows = cache.layers[layer]
        expected = torch.stack([rows.keys[0, :, -1], rows.values[0, :, -1]])
        assert torch.allclose(computed[layer][:, :, 42], expected, atol=1e-5)


def test_gap_tells_an_exact_hit_from_a_tie() -> None:
    tokens = torch.tensor([7, 8, 9])
    assert ranked(tokens, torch.tensor([4.0, 1.0, 2.0])) == (8, 0.5)
    assert ranked(tokens[:1], torch.tensor([4.0])) == (7, 0.0)
    row = TokenRows(heads=np.array([0]), rows=np.ones((2, 1, 4), dtype=np.float32))
    computed = {0: torch.stack([torch.ones(2, 1, 4), torch.full((2, 1, 4), 3.0)], dim=2)}
    far = distances(computed, {0: row})
    assert far[0] < 1e-6
    assert far[1] == pytest.approx(4.0)


def test_noise_is_a_share_of_each_row() -> None:
    keys = np.ones((2, 3, 500), dtype=np.float32) * np.array([1, 10, 0])[None, :, None]
    rows = KvRows(
        keys=keys.astype(np.float32), values=keys.astype(np.float32), positions=np.arange(3)
    )
    noisy = add_noise(rows, 0.5, np.random.default_rng(0))
    spread = (noisy.keys - rows.keys).std(axis=(0, 2))
    assert spread == pytest.approx([0.5, 5.0, 0.0], rel=0.1)


def test_repeating_is_told_beside_chance() -> None:
    model, tokenizer = tiny_model("llama"), word_tokenizer()
    sending = Sending(plan=SyncPlan((1, 3)), compression=RAW)
    answered = repeat(Prefiller(model), tokenizer, TEXT, sending)
    assert answered.num_tokens == len(TEXT)
    assert 0 <= answered.num_found <= len(TEXT)
    assert 0 <= answered.num_found_alone <= len(TEXT)


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [([1, 2, 3, 4], [2, 9, 4], 2), ([], [1], 0), ([1, 1], [1], 1), ([3, 1, 2], [1, 2, 3], 2)],
)
def test_common_length(first: list[int], second: list[int], length: int) -> None:
    assert common_length(first, second) == length


def test_what_cannot_be_attacked_is_refused() -> None:
    model = tiny_model("llama")
    with pytest.raises(InvalidRequestError, match="no rows travel"):
        received(model)
    with pytest.raises(InvalidRequestError, match="noise must be between 0 and 100, got nan"):
        noisy_exchange(float("nan"), 0)
    with pytest.raises(ContextTooLongError, match="window is 256"):
        receive_rows(
            Prefiller(model), PREFIX, TEXT * 30, Sending(plan=SyncPlan((1,)), compression=RAW)
        )
