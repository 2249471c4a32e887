"""The two seams into transformers: an attention function and its mask function.

Traps these guard against: a registered attention name without a mask function silently gets no
mask at all; no mask with more keys than queries aligns top-left, silently wrong; gapped position
ids without a mask are read as packed sequences. So every call passes a ready 4-D boolean mask,
and the mask function refuses to invent one.
"""

from typing import Any, NoReturn, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

ATTENTION_NAME = "fedattn"


class LayerMasks(Protocol):
    """Knows what the queries of the running forward see at each layer."""

    def layer_mask(self, layer: int, num_queries: int) -> torch.Tensor | None:
        """[1, 1, T, S] bool, True where visible; None if every query sees every key."""


def federated_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    layer_masks: LayerMasks,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention with the mask of `module`'s own layer.

    Args:
        module: the attention block; its `layer_idx` picks the mask.
        query: [B, Hq, T, D] after RoPE.
        key: [B, Hkv, S, D] after RoPE, placed in token order.
        value: [B, Hkv, S, D].
        attention_mask: ignored; it only keeps transformers from building one.
        layer_masks: the source of the mask.
        scaling: factor on the scores, None for 1 / sqrt(D).

    Returns:
        ([B, T, Hq, D], None).
    """
    mask = layer_masks.layer_mask(int(module.layer_idx), query.shape[2])  # type: ignore[arg-type]
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    return output.transpose(1, 2).contiguous(), None


def _refuse_mask(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("fedattn attention needs a ready 4-D mask; call the model through run_model")


def register_attention() -> None:
    """Make ATTENTION_NAME known to transformers. Calling it again changes nothing."""
    AttentionInterface.register(ATTENTION_NAME, federated_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, _refuse_mask)


def run_model(
    backbone: torch.nn.Module,
    token_ids: torch.Tensor,
    positions: torch.Tensor,
    *,
    layer_masks: LayerMasks,
    cache: Any = None,
) -> torch.Tensor:
    """One forward pass of the Transformer blocks, without the language-model head.

    Args:
        backbone: the inner model of a Llama- or Qwen2-family causal LM.
        token_ids: [T] int64.
        positions: [T] int64 global positions.
        layer_masks: what each layer's queries see.
        cache: transformers cache to read and extend, or None.

    Returns:
        [T, d] hidden states after the final norm.
    """
    placeholder = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=token_ids.device)
    output = backbone(
        input_ids=token_ids[None],
        position_ids=positions[None],
        attention_mask=placeholder,
        past_key_values=cache,
        use_cache=cache is not None,
        layer_masks=layer_masks,
    )
    hidden: torch.Tensor = output.last_hidden_state[0]
    return hidden
