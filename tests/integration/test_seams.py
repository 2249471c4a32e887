"""The two public seams into transformers, which a new release might move."""

import pytest
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from fedattn.model.attention import ATTENTION_NAME, run_model
from fedattn.model.cache import FederatedCache, FederatedLayer
from tests.tiny import FAMILIES, tiny_model


class RecordingMasks:
    """Notes for which blocks a mask was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def layer_mask(self, layer: int, num_queries: int) -> torch.Tensor | None:
        self.asked.append((layer, num_queries))
        return torch.ones(1, 1, num_queries, num_queries, dtype=torch.bool).tril()


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_function_is_asked_for_every_block_in_order(family: str) -> None:
    model, masks = tiny_model(family), RecordingMasks()
    with torch.inference_mode():
        run_model(model.backbone, torch.arange(4), torch.arange(4), layer_masks=masks)
    assert masks.asked == [(layer, 4) for layer in range(model.shape.num_layers)]


@pytest.mark.parametrize("family", FAMILIES)
def test_model_without_a_ready_mask_is_refused(family: str) -> None:
    """A registered name without a mask function would silently attend to everything."""
    model = tiny_model(family)
    with pytest.raises(RuntimeError, match="ready 4-D mask"):
        model.backbone(input_ids=torch.arange(4)[None])


def test_every_block_updates_its_own_cache_layer() -> None:
    model = tiny_model("llama")
    cache = FederatedCache(model.shape.num_layers, model.device)
    assert isinstance(cache, Cache)
    assert isinstance(cache.layers[0], CacheLayerMixin)
    cache.query_positions = torch.arange(3)
    with torch.inference_mode():
        run_model(
            model.backbone, torch.arange(3), cache.query_positions, layer_masks=cache, cache=cache
        )
    for layer in cache.federated:
        assert isinstance(layer, FederatedLayer)
        assert layer.positions.tolist() == [0, 1, 2]
        assert layer.rows()[0].shape == (1, 2, 3, 8)


def test_attention_of_a_wrapped_model_is_ours() -> None:
    assert tiny_model("llama").backbone.config._attn_implementation == ATTENTION_NAME  # type: ignore[union-attr]


def test_mask_reaches_back_over_gapped_positions() -> None:
    """Keys at 0 1 | 5 6 (own), queries 5 and 6: causal by position, not by place."""
    cache = FederatedCache(1, torch.device("cpu"))
    cache.federated[0].positions = torch.tensor([0, 1, 5, 6])
    cache.query_positions = torch.tensor([5, 6])
    mask = cache.layer_mask(0, 2)
    assert mask is not None
    assert mask[0, 0].tolist() == [[True, True, True, False], [True, True, True, True]]
