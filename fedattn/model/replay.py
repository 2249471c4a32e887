"""Which rows of a context a model looks at when it repeats it: the score of KVzip.

Whoever gives a context does not know what will be asked. A model that repeats the context word for
word looks at whatever holds its content, and later questions look there too (arXiv 2505.23416).
"""

import numpy as np
import torch

from fedattn.core.types import FloatArray, KvRows
from fedattn.model.attention import run_model
from fedattn.model.cache import FederatedCache
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import forward_tokens
from fedattn.model.prompt import PromptTokenizer

MAX_PIECE = 512
"""Tokens that are repeated at once, which bounds the memory of the scores."""
_REQUEST = "Repeat the notes above, word for word."


class ContextRows:
    """Rows of a context right behind the public prefix, as an independent contributor has them.

    Args:
        model: computes them.
        prefix: P tokens of the public prefix.
        token_ids: T tokens of the context.
    """

    @torch.inference_mode()
    def __init__(self, model: LoadedModel, prefix: list[int], token_ids: list[int]) -> None:
        self._model = model
        self.token_ids = token_ids
        self.start = len(prefix)
        cache = FederatedCache(model.shape.num_layers, model.device)
        forward_tokens(model, cache, [*prefix, *token_ids], range(self.stop))
        self._layers = cache.layers

    @property
    def stop(self) -> int:
        """Position after its last token."""
        return self.start + len(self.token_ids)

    def rows(self, layer: int) -> KvRows:
        """Its own rows at a layer."""
        keys, values = (
            rows[0, :, self.start :].to(device="cpu", dtype=torch.float32).numpy()
            for rows in self.keys_and_values(layer)
        )
        return KvRows(keys=keys, values=values, positions=np.arange(self.start, self.stop))

    def keys_and_values(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """[1, Hkv, P + T, D] each, keys after RoPE; the prefix comes first."""
        return self._layers[layer].keys, self._layers[layer].values

    @torch.inference_mode()
    def replay_scores(self, tokenizer: PromptTokenizer) -> FloatArray:
        """The most attention each row gets from any query head of its group, 0 to 1.

        The context is repeated piece by piece, each behind all of it and a request to repeat it.

        Returns:
            [L, Hkv, T] float32.
        """
        view = _Replay(self)
        request = tokenizer.question(_REQUEST)
        for begin in range(0, len(self.token_ids), MAX_PIECE):
            repeated = [*request, *self.token_ids[begin : begin + MAX_PIECE]]
            positions = torch.arange(self.stop, self.stop + len(repeated))
            run_model(
                self._model.backbone,
                torch.tensor(repeated, device=self._model.device),
                positions.to(self._model.device),
                view,
            )
        return np.stack([most.cpu().numpy() for most in view.most])


class _Replay:
    """A `KvView` of queries behind a context, which notes what they look at."""

    def __init__(self, context: ContextRows) -> None:
        self._context = context
        shape = context._model.shape  # noqa: SLF001 - of this file
        size = (shape.num_kv_heads, len(context.token_ids))
        device = context._model.device  # noqa: SLF001
        self.most = [torch.zeros(size, device=device) for _ in range(shape.num_layers)]

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """As `KvView.attend`; one key/value head after the other, to bound the memory."""
        known = self._context.keys_and_values(layer)
        keys, values = (torch.cat(both, dim=2)[0] for both in zip(known, (key, value), strict=True))
        groups = query[0].unflatten(0, (keys.shape[0], -1))  # [Hkv, G, n, D]
        scale = scaling or query.shape[-1] ** -0.5
        ahead = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool).triu(1)
        ahead = ahead.to(query.device)
        outputs = []
        for head, queries in enumerate(groups):
            scores = (queries @ keys[head].T).float() * scale  # [G, n, S]
            scores[..., self._context.stop :].masked_fill_(ahead, -torch.inf)
            weights = torch.softmax(scores, dim=-1)
            looked = weights[..., self._context.start : self._context.stop].amax(dim=(0, 1))
            torch.maximum(self.most[layer][head], looked, out=self.most[layer][head])
            outputs.append(weights.to(values.dtype) @ values[head])
        return torch.cat(outputs)[None]
