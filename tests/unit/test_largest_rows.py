"""The bounds that weights set: nothing a model makes is beyond them, and something reaches them."""

import numpy as np
import pytest
import torch

from fedattn.core.row_bounds import MARGIN, RowBounds
from fedattn.core.types import HeadRows, KvRows
from fedattn.model.cache import FederatedCache
from fedattn.model.loading import wrap_model
from fedattn.model.prefill import forward_tokens
from tests.harness.tiny import ALL_FAMILIES, VOCABULARY, tiny_model, tiny_network


@pytest.mark.parametrize("family", ALL_FAMILIES)
@pytest.mark.parametrize("seed", range(2))
def test_every_token_of_a_model_is_within_its_bounds(family: str, seed: int) -> None:
    model = tiny_model(family, seed)
    cache = FederatedCache(model.windows, model.device)
    with torch.inference_mode():
        forward_tokens(model, cache, list(range(VOCABULARY)), range(0, 2 * VOCABULARY, 2))
    for layer, made in enumerate(cache.layers):
        for one, bounds in (
            (made.keys, model.row_bounds.keys),
            (made.values, model.row_bounds.values),
        ):
            norms = torch.linalg.vector_norm(one[0], dim=-1).amax(dim=1).numpy()
            assert (norms <= bounds[layer] * 1.0001).all()
            assert (norms >= 0.1 * bounds[layer]).all()  # and the bounds are no empty words


def test_some_hidden_state_reaches_the_bound() -> None:
    """Without biases: the direction of the largest singular value."""
    model = tiny_model("llama")
    assert model.read_block is not None
    block = model.read_block(model.backbone.layers[2])  # type: ignore[index]
    projection = block.query_key_value[1].weight * block.norm.weight
    head = projection.view(model.shape.num_kv_heads, model.shape.head_dim, -1)[1]
    with torch.inference_mode():
        hidden = torch.linalg.svd(head).Vh[0] * 1e3
        made = block.query_key_value[1](block.norm(hidden)).view(model.shape.num_kv_heads, -1)[1]
    assert float(made.norm()) == pytest.approx(float(model.row_bounds.keys[2, 1]), rel=1e-3)


def at_the_bound(bounds: RowBounds, layer: int, head_dim: int) -> KvRows:
    """Four rows that only just pass, all in one direction."""
    share = np.float32(0.999 * MARGIN / head_dim**0.5)
    keys, values = (
        np.broadcast_to(share * one[layer][:, None, None], (len(one[layer]), 4, head_dim)).copy()
        for one in (bounds.keys, bounds.values)
    )
    made = KvRows(keys=keys, values=values, positions=np.arange(4))
    bounds.check(HeadRows.of(made), layer, "a")
    return made


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_half_precision_stays_finite_beside_rows_at_the_bound(
    family: str, dtype: torch.dtype
) -> None:
    model = wrap_model(tiny_network(family).to(dtype), "0" * 64)
    cache = FederatedCache(model.windows, model.device)
    layers, head_dim = range(model.shape.num_layers), model.shape.head_dim
    received = [at_the_bound(model.row_bounds, layer, head_dim) for layer in layers]
    cache.seed([cache._part(one, dtype) for one in received])
    with torch.inference_mode():
        hidden = forward_tokens(model, cache, list(range(20)), range(4, 24))
    assert torch.isfinite(hidden).all()
