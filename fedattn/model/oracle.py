"""The slow, obvious version: one model over the joined tokens, dense masks, no cache.

It shares no line with the fast path but the mask definition in `fedattn.core.visibility`, and is
kept for ever: every faster path must give its logits and its greedy tokens.
"""

import torch

from fedattn.core.spans import SessionLayout
from fedattn.core.visibility import visibility_mask
from fedattn.model.attention import run_model
from fedattn.model.loading import LoadedModel


class DenseMasks:
    """A full [S, S] mask for every block."""

    def __init__(self, layout: SessionLayout, num_generated: int, device: torch.device) -> None:
        self._masks = [
            torch.from_numpy(visibility_mask(layout, layer, num_generated)).to(device)[None, None]
            for layer in range(layout.num_layers)
        ]

    def layer_mask(self, layer: int, num_queries: int) -> torch.Tensor:
        mask = self._masks[layer]
        if mask.shape[-1] != num_queries:
            raise ValueError(f"the oracle runs {mask.shape[-1]} tokens at once, got {num_queries}")
        return mask


@torch.inference_mode()
def oracle_logits(
    model: LoadedModel, layout: SessionLayout, token_ids: list[int], generated: list[int]
) -> torch.Tensor:
    """Logits after every token of the joined sequence.

    Args:
        model: the model.
        layout: spans and plans.
        token_ids: public prefix and all spans joined, `layout.num_tokens` of them.
        generated: answer tokens so far, the publisher's.

    Returns:
        [S, V] float32.
    """
    if len(token_ids) != layout.num_tokens:
        raise ValueError(f"expected {layout.num_tokens} tokens, got {len(token_ids)}")
    ids = torch.tensor(token_ids + generated, dtype=torch.int64, device=model.device)
    masks = DenseMasks(layout, len(generated), model.device)
    positions = torch.arange(len(ids), device=model.device)
    hidden = run_model(model.backbone, ids, positions, layer_masks=masks)
    logits: torch.Tensor = model.head(hidden).float()
    return logits


def oracle_greedy(
    model: LoadedModel, layout: SessionLayout, token_ids: list[int], max_new_tokens: int
) -> list[int]:
    """Greedy answer tokens, recomputing everything for each one; ends before an end token."""
    generated: list[int] = []
    while len(generated) < max_new_tokens:
        token = int(oracle_logits(model, layout, token_ids, generated)[-1].argmax())
        if token in model.end_token_ids:
            break
        generated.append(token)
    return generated
