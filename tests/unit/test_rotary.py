"""RoPE outside the model: it can be undone, and it is the model's own."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from fedattn.core.rotary import Rotary
from fedattn.core.types import FloatArray
from tests.harness.samples import rotary_of

FAR = 8192


def random_keys(num_rows: int, head_dim: int, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).normal(size=(2, num_rows, head_dim)).astype(np.float32)


def slow_apply(rotary: Rotary, keys: FloatArray, positions: list[int]) -> FloatArray:
    """RoFormer section 3.2.2, one pair of channels at a time, in float64."""
    turned = keys.astype(np.float64)
    pairs = len(rotary.inverse_frequencies)
    for head in range(keys.shape[0]):
        for row, position in enumerate(positions):
            for pair, frequency in enumerate(rotary.inverse_frequencies.tolist()):
                cosine, sine = math.cos(position * frequency), math.sin(position * frequency)
                first, second = keys[head, row, pair], keys[head, row, pair + pairs]
                turned[head, row, pair] = first * cosine - second * sine
                turned[head, row, pair + pairs] = second * cosine + first * sine
    return turned.astype(np.float32)


positions_up_to_far = st.lists(st.integers(0, FAR), min_size=1, max_size=6, unique=True).map(sorted)


@given(positions_up_to_far, st.integers(1, 65), st.integers(0, 2**32 - 1))
def test_undoing_what_was_applied_gives_the_keys_back(
    positions: list[int], head_dim: int, seed: int
) -> None:
    keys, rotary, at = random_keys(len(positions), head_dim, seed), rotary_of(head_dim), positions
    turned = rotary.apply(keys, np.array(at))
    assert turned.dtype == np.float32
    assert np.abs(rotary.undo(turned, np.array(at)) - keys).max() <= 1e-5
    assert np.abs(rotary.apply(rotary.undo(keys, np.array(at)), np.array(at)) - keys).max() <= 1e-5


@given(positions_up_to_far, st.integers(1, 16), st.data())
def test_rotation_equals_the_definition_also_where_it_is_partial(
    positions: list[int], head_dim: int, data: st.DataObject
) -> None:
    pairs = data.draw(st.integers(0, head_dim // 2))
    rotary = Rotary(inverse_frequencies=np.power(0.3, np.arange(pairs)))
    keys = random_keys(len(positions), head_dim)
    turned = rotary.apply(keys, np.array(positions))
    assert np.abs(turned - slow_apply(rotary, keys, positions)).max() <= 1e-5
    assert np.array_equal(turned[..., 2 * pairs :], keys[..., 2 * pairs :])


@pytest.mark.parametrize("head_dim", [8, 64])
def test_rotation_equals_that_of_transformers(head_dim: int) -> None:
    config = LlamaConfig(
        hidden_size=4 * head_dim, num_attention_heads=4, max_position_embeddings=FAR
    )
    embedding = LlamaRotaryEmbedding(config)
    rotary = Rotary(inverse_frequencies=embedding.inv_freq.double().numpy())
    positions = np.array([0, 1, 2, 7, 100, 1000])
    keys = random_keys(len(positions), head_dim)
    wide = torch.from_numpy(keys)[None]
    cosines, sines = embedding(wide, torch.from_numpy(positions)[None])
    expected, _ = apply_rotary_pos_emb(wide, wide, cosines, sines)
    assert np.abs(rotary.apply(keys, positions) - expected[0].numpy()).max() <= 5e-4


def test_first_position_is_not_turned() -> None:
    keys = random_keys(1, 6)
    assert np.array_equal(rotary_of(6).apply(keys, np.array([0])), keys)


def test_a_quarter_turn_moves_the_first_half_into_the_second() -> None:
    quarter = Rotary(inverse_frequencies=np.array([math.pi / 2]))
    keys = np.array([[[3.0, 5.0]]], dtype=np.float32)
    assert np.allclose(quarter.apply(keys, np.array([1])), [[[-5.0, 3.0]]], atol=1e-6)


def test_keys_given_are_left_as_they_are() -> None:
    keys = random_keys(2, 4)
    before = keys.copy()
    rotary_of(4).undo(keys, np.array([3, 9]))
    assert np.array_equal(keys, before)
