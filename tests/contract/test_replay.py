"""Replay scores against attention written out, for every family."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from fedattn.model import replay
from fedattn.model.attention import run_model, sdpa
from fedattn.model.loading import LoadedModel
from fedattn.model.replay import ContextRows
from tests.harness.tiny import UNLIKE_FAMILIES, tiny_model, word_tokenizer, words


class _Watching:
    """A `KvView` of one pass over everything, without a cache, that notes all attention."""

    def __init__(self, windows: Sequence[int | None]) -> None:
        self.windows = windows
        self.weights: list[torch.Tensor] = []

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        size, group = query.shape[2], query.shape[1] // key.shape[1]
        mask = torch.ones(size, size, dtype=torch.bool).tril()
        window = self.windows[layer]
        if window is not None:
            mask = mask.triu(1 - window)
        every_key = key.repeat_interleave(group, dim=1)
        scores = query @ every_key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5)
        self.weights.append(torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)[0])
        return sdpa(query, key, value, mask[None, None], scaling)


def most_attention(model: LoadedModel, tokens: list[int], seen: slice, by: slice) -> np.ndarray:
    """[L, Hkv, T] of one pass over the tokens."""
    watching = _Watching(model.windows)
    with torch.inference_mode():
        run_model(model.backbone, torch.tensor(tokens), torch.arange(len(tokens)), watching)
    heads = model.shape.num_kv_heads
    most = [one[:, by, seen].amax(dim=1).view(heads, -1, seen.stop - seen.start).amax(dim=1)
            for one in watching.weights]  # fmt: skip
    return torch.stack(most).numpy()


@pytest.mark.parametrize("family", UNLIKE_FAMILIES)
def test_a_row_scores_the_most_attention_it_gets_while_its_context_is_repeated(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tiny_model(family), word_tokenizer()
    prefix, context = tokenizer.prefix(), tokenizer.context(words(5, 12))
    request = tokenizer.question("Repeat the notes above, word for word.")
    start, stop = len(prefix), len(prefix) + len(context)
    expected = []
    for piece in (context[:8], context[8:]):
        tokens = [*prefix, *context, *request, *piece]
        expected.append(most_attention(model, tokens, slice(start, stop), slice(stop, None)))
    monkeypatch.setattr(replay, "MAX_PIECE", 8)
    found = ContextRows(model, prefix, context).replay_scores(tokenizer)
    np.testing.assert_allclose(found, np.maximum(*expected), atol=1e-5)
    assert found.shape == (model.shape.num_layers, model.shape.num_kv_heads, len(context))
