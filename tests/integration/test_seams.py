"""The seam into transformers, which a new release might move, and the view behind it."""

import pytest
import torch

from fedattn.model.attention import ATTENTION_NAME, run_model, sdpa
from fedattn.model.cache import FederatedCache
from fedattn.model.layer_cache import LayerCache
from tests.harness.tiny import ALL_FAMILIES, FAMILIES, tiny_model


class RecordingView:
    """Notes for which blocks it was asked, and with what."""

    def __init__(self, windows: tuple[int | None, ...]) -> None:
        self.windows = windows
        self.asked: list[int] = []
        self.shapes: set[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = set()

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        self.asked.append(layer)
        self.shapes.add((tuple(query.shape), tuple(key.shape), tuple(value.shape)))
        num_tokens = query.shape[2]
        mask = torch.ones(1, 1, num_tokens, num_tokens, dtype=torch.bool).tril()
        return sdpa(query, key, value, mask, scaling)


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_view_is_asked_for_every_block_in_order(family: str) -> None:
    model = tiny_model(family)
    view = RecordingView(model.windows)
    with torch.inference_mode():
        run_model(model.backbone, torch.arange(4), torch.arange(4), view)
    shape = model.shape
    key_shape = (1, shape.num_kv_heads, 4, shape.head_dim)
    query_shape = (1, model.sizes.num_query_heads, 4, shape.head_dim)
    assert view.asked == list(range(shape.num_layers))
    assert view.shapes == {(query_shape, key_shape, key_shape)}


@pytest.mark.parametrize("family", FAMILIES)
def test_model_without_a_ready_mask_is_refused(family: str) -> None:
    """A registered name without a mask function would silently attend to everything."""
    model = tiny_model(family)
    with pytest.raises(RuntimeError, match="ready 4-D mask"):
        model.backbone(input_ids=torch.arange(4)[None])


def test_attention_of_a_wrapped_model_is_ours() -> None:
    assert tiny_model("llama").backbone.config._attn_implementation == ATTENTION_NAME  # type: ignore[union-attr]


def test_every_block_keeps_its_own_rows() -> None:
    model = tiny_model("llama")
    cache = FederatedCache(model.windows, model.device)
    cache.query_positions = torch.arange(3)
    with torch.inference_mode():
        run_model(model.backbone, torch.arange(3), cache.query_positions, cache)
    assert len(cache.layers) == model.shape.num_layers
    for layer in cache.layers:
        assert layer.positions.tolist() == [0, 1, 2]
        assert layer.keys.shape == (1, 2, 3, 8)
    assert not torch.equal(cache.layers[0].keys, cache.layers[1].keys)


NUM_ROWS = 4


def rows_at(first: int, *positions: int) -> LayerCache:
    """Keys of zero, and values that tell one row from another: row i has its one at i."""
    values = torch.eye(NUM_ROWS)[first : first + len(positions)]
    return LayerCache(
        torch.zeros(1, 1, len(positions), NUM_ROWS), values[None, None], torch.tensor(positions)
    )


def seen(cache: FederatedCache, first: int, *positions: int) -> list[list[bool]]:
    """Which rows own queries at these positions of block 0 see: equal keys weigh alike."""
    own = rows_at(first, *positions)
    cache.query_positions = own.positions
    output = cache.attend(0, torch.zeros_like(own.keys), own.keys, own.values, None)
    return (output[0, 0] > 0).tolist()


def test_mask_reaches_back_over_gapped_positions() -> None:
    """Keys at 0 1 | 5 6 (own), queries 5 and 6: causal by position, not by place."""
    cache = FederatedCache((None,), torch.device("cpu"))
    cache.seed([rows_at(0, 0, 1)])
    assert seen(cache, 2, 5, 6) == [[True, True, True, False], [True, True, True, True]]


def test_single_query_sees_every_key() -> None:
    cache = FederatedCache((None,), torch.device("cpu"))
    cache.seed([rows_at(0, 0, 1)])
    assert seen(cache, 2, 7) == [[True, True, True, False]]


@pytest.mark.parametrize("positions", [(6,), (5, 6)])
def test_a_window_counts_positions_and_not_rows(positions: tuple[int, ...]) -> None:
    """Window 4, keys at 0 2 3 and the own ones: 2 is seen from 5, and not from 6."""
    cache = FederatedCache((4,), torch.device("cpu"))
    cache.seed(
        [LayerCache(torch.zeros(1, 1, 2, 4), torch.eye(4)[None, None, :2], torch.tensor([2, 3]))]
    )
    expected = {5: [True, True, True, False], 6: [False, True, True, True]}
    if len(positions) == 1:
        expected = {6: [False, True, True, False]}
    assert seen(cache, 2, *positions) == [expected[position] for position in positions]


def test_rows_of_a_seed_are_never_written() -> None:
    shared = rows_at(0, 0, 1)
    cache = FederatedCache((None,), torch.device("cpu"))
    cache.seed([shared])
    seen(cache, 2, 5, 6)
    assert shared.positions.tolist() == [0, 1]
    assert torch.equal(shared.values, torch.eye(NUM_ROWS)[None, None, :2])
    assert cache.layers[0].positions.tolist() == [0, 1, 5, 6]


def test_dropped_rows_are_forgotten_at_every_block() -> None:
    cache = FederatedCache((None, None), torch.device("cpu"))
    cache.seed([rows_at(0, 0, 1, 2), rows_at(0, 0, 1, 2)])
    cache.drop_last(2)
    assert [layer.positions.tolist() for layer in cache.layers] == [[0], [0]]
