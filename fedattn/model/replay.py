"""Which rows of a context a model looks at when it repeats it: the score of KVzip.

Whoever gives a context does not know what will be asked. A model that repeats the context word for
word looks at whatever holds its content, and later questions look there too (arXiv 2505.23416).
"""

from collections.abc import Sequence

import numpy as np
import torch

from fedattn.core.routing import Route
from fedattn.core.types import FloatArray, HeadRows, KvRows, KvShape, Queries
from fedattn.model.attention import run_model
from fedattn.model.cache import FederatedCache
from fedattn.model.loading import LoadedModel
from fedattn.model.positions import visible
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

    Attributes:
        rows: its own rows, by layer.
        queries: those of the same tokens, as `KvExchange.send` gets them, by layer.
    """

    @torch.inference_mode()
    def __init__(self, model: LoadedModel, prefix: list[int], token_ids: list[int]) -> None:
        self._model = model
        self.token_ids = token_ids
        self.start = len(prefix)
        self.rows: list[KvRows] = []
        self.queries: list[Queries] = []
        before = FederatedCache(model.windows, model.device)
        forward_tokens(model, before, prefix, range(self.start))
        cache = FederatedCache(model.windows, model.device, exchange=_Kept(self))
        cache.seed(before.layers)
        forward_tokens(model, cache, token_ids, range(self.start, self.stop))
        self._layers = cache.layers

    @property
    def shape(self) -> KvShape:
        return self._model.shape

    @property
    def windows(self) -> Sequence[int | None]:
        return self._model.windows

    @property
    def stop(self) -> int:
        """Position after its last token."""
        return self.start + len(self.token_ids)

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


class _Kept:
    """`KvExchange` of a context that sends everything to itself."""

    def __init__(self, context: ContextRows) -> None:
        self._context = context
        uploads = frozenset(range(context.shape.num_layers))
        self.route = Route(uploads=uploads, receives=frozenset(), senders=())

    def send(self, _layer: int, rows: KvRows, queries: Queries) -> None:
        self._context.rows.append(rows)
        self._context.queries.append(queries)

    def receive(self, layer: int) -> list[HeadRows]:
        raise AssertionError(f"nobody sends rows of block {layer} to a context on its own")


class _Replay:
    """A `KvView` of queries behind a context, which notes what they look at."""

    def __init__(self, context: ContextRows) -> None:
        self._context = context
        self.windows = context.windows
        size = (context.shape.num_kv_heads, len(context.token_ids))
        device = context.keys_and_values(0)[0].device
        self.most = [torch.zeros(size, device=device) for _ in context.rows]

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
        groups = query[0].reshape(keys.shape[0], -1, *query.shape[2:])  # [Hkv, G, n, D]
        scale = scaling or query.shape[-1] ** -0.5
        positions = torch.arange(keys.shape[1], device=query.device)
        hidden = ~visible(positions[-query.shape[2] :], positions, self.windows[layer])
        outputs = []
        for head, queries in enumerate(groups):
            scores = (queries @ keys[head].T).float() * scale  # [G, n, S]
            scores.masked_fill_(hidden, -torch.inf)
            weights = torch.softmax(scores, dim=-1)
            looked = weights[..., self._context.start : self._context.stop].amax(dim=(0, 1))
            torch.maximum(self.most[layer][head], looked, out=self.most[layer][head])
            outputs.append(weights.to(values.dtype) @ values[head])
        return torch.cat(outputs)[None]
