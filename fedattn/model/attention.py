"""The seam into transformers: an attention function (and a mask function that refuses to guess).

The attention function is the one place where a block hands over its queries, keys and values. A
`KvView` answers with what these queries make of all they see, wherever it comes from.

Traps this guards against: a registered attention name without a mask function silently gets no
mask at all; no mask with more keys than queries aligns top-left, silently wrong; gapped position
ids without a mask are read as packed sequences. So every call passes a ready 4-D boolean mask,
and the mask function refuses to invent one.
"""

from collections.abc import Sequence
from typing import Any, NoReturn, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

from fedattn.core.errors import ModelError
from fedattn.model.hugging_face import AttentionInterface, AttentionMaskInterface

ATTENTION_NAME = "fedattn"
_CHANGES_NOTHING = frozenset({"position_ids", "use_cache"})
"""Arguments that blocks pass along, applied elsewhere: positions by RoPE, the cache by a view."""


class KvView(Protocol):
    """Attends for the queries of the running forward pass, whatever they see and wherever it is.

    Attributes:
        windows: of every block, positions that a query sees, its own included; None for all
            earlier ones.
    """

    @property
    def windows(self) -> Sequence[int | None]: ...

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """What the queries make of all they see. May wait for other nodes.

        Args:
            layer: zero-based block.
            query: [B, Hq, T, D] after RoPE.
            key: [B, Hkv, T, D] after RoPE, of the same tokens.
            value: [B, Hkv, T, D].
            scaling: factor on the scores, None for 1 / sqrt(D).

        Returns:
            [B, Hq, T, D].
        """


def score_factor(query: torch.Tensor, scaling: float | None) -> float:
    """What the scores of queries [..., D] are multiplied by, None standing for 1 / sqrt(D)."""
    return float(query.shape[-1]) ** -0.5 if scaling is None else scaling


def sdpa(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
) -> torch.Tensor:
    """Attention for views that hold all the rows their queries see.

    Args:
        query: [B, Hq, T, D] after RoPE.
        keys: [B, Hkv, S, D] after RoPE, in token order.
        values: [B, Hkv, S, D].
        mask: [B, 1 or Hq, T, S] bool, True where visible, or what is added to the scores; None if
            every query sees every key.
        scaling: factor on the scores, None for 1 / sqrt(D).

    Returns:
        [B, Hq, T, D].
    """
    heads, kv_heads = query.shape[1], keys.shape[1]
    if heads != kv_heads and len(query) == 1 and query.device.type == "cpu":
        return _grouped_sdpa(query, keys, values, mask, scaling)
    return scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=mask,
        scale=scaling,
        enable_gqa=heads != kv_heads,
    )


def _grouped_sdpa(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
) -> torch.Tensor:
    """As `sdpa` for B = 1; on the CPU torch would copy keys and values for every query head.

    A key/value head is a batch of its own, [Hkv, Hq / Hkv, S, D], of views.
    """
    grouped = query[0].view(keys.shape[1], -1, *query.shape[2:])
    if mask is not None and mask.shape[1] > 1:
        mask = mask[0].view(keys.shape[1], -1, *mask.shape[2:])
    return scaled_dot_product_attention(
        grouped,
        keys[0][:, None].expand(-1, grouped.shape[1], -1, -1),
        values[0][:, None].expand(-1, grouped.shape[1], -1, -1),
        attn_mask=mask,
        scale=scaling,
    ).flatten(0, 1)[None]


def federated_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    kv_view: KvView,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over what `module`'s own layer sees.

    Args:
        module: the attention block; its `layer_idx` is the layer.
        query: [B, Hq, T, D] after RoPE.
        key: [B, Hkv, T, D] after RoPE.
        value: [B, Hkv, T, D].
        attention_mask: ignored; it only keeps transformers from building one.
        kv_view: attends.
        scaling: factor on the scores, None for 1 / sqrt(D).
        others: what else the block asks for; see `_refuse_others`.

    Returns:
        ([B, T, Hq, D], None).

    Raises:
        ModelError: the block asks for another attention than this one.
    """
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    _check_window(layer, others.pop("sliding_window", None), kv_view.windows[layer])
    _refuse_others(others)
    output = kv_view.attend(layer, query, key, value, scaling)
    return output.transpose(1, 2).contiguous(), None


def _check_window(layer: int, asked: int | None, known: int | None) -> None:
    """The block and the table of families must mean the same rows."""
    if asked != known:
        raise ModelError(
            f"block {layer} of this model wants attention with sliding_window={asked}, expected "
            f"{known}; use a model of a supported family"
        )


def _refuse_others(others: dict[str, Any]) -> None:
    """A soft cap, sinks: whatever is not known to change nothing is refused by name."""
    for key, value in others.items():
        if key in _CHANGES_NOTHING or value is None or (key == "dropout" and value == 0.0):
            continue
        shown = type(value).__name__ if isinstance(value, torch.Tensor) else repr(value)[:80]
        raise ModelError(
            f"a block of this model wants attention with {key}={shown}, which is not supported; "
            f"use a model of a supported family without it"
        )


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
    kv_view: KvView,
) -> torch.Tensor:
    """One forward pass of the Transformer blocks, without the language-model head.

    Args:
        backbone: the inner model of a causal LM of a supported family.
        token_ids: [T] int64.
        positions: [T] int64 global positions.
        kv_view: what each layer's queries see.

    Returns:
        [T, d] hidden states after the final norm.
    """
    placeholder = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=token_ids.device)
    output = backbone(
        input_ids=token_ids[None],
        position_ids=positions[None],
        attention_mask=placeholder,
        use_cache=False,
        kv_view=kv_view,
    )
    hidden: torch.Tensor = output.last_hidden_state[0]
    return hidden
