"""From which visible tokens an answer was drawn, by the attention of the answer's own tokens.

The mean attention hardly tells: most heads spread theirs over everything, so long passages win. A
few heads copy, and point at single rows (retrieval heads, arXiv 2404.15574). A passage's share
therefore counts each attention weight in its fourth power, which leaves nothing of what is spread
and nearly all of what is pointed. First tokens and the own question draw much attention whatever
is asked, so shares are among the passages alone.

The answer is replayed: one forward pass over its tokens by the blocks of transformers, whoever
decoded it. Cost: A tokens through the model, and at the given layers A x S weights a head.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from fedattn.core.asked import PartialAttention
from fedattn.core.spans import Span
from fedattn.model.asked import merge_parts
from fedattn.model.attending import attend_partly, attend_rows
from fedattn.model.attention import run_model
from fedattn.model.exchange import AskingExchange
from fedattn.model.layer_cache import LayerCache, join_rows
from fedattn.model.likelihood import token_log_probs
from fedattn.model.loading import LoadedModel
from fedattn.model.positions import visible
from fedattn.model.prefill import PrefillResult

_POWER = 4
_QUERIES_AT_ONCE = 64
"""Weights of this many queries are in memory together, [Hq, 64, S]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What the tokens of an answer attended to, at the given layers.

    Attributes:
        shares: how much of the answer each passage gave, 0 to 1; they add up to 1, or are all 0 if
            no row of any passage was seen.
        masses: attention on each passage, of 1 for all that a token sees (prefix, passages, own
            question, answer so far); mean over answer tokens, query heads and layers.
        peak: attention on the single row of all passages that an answer token attends to most, 0
            to 1; mean over answer tokens, of the head that has the most.
        log_probs: log-probability of each answer token, nats.
        influences: how much of the attention on all members' rows each member's drew, 0 to 1; they
            add up to 1, or are all 0 if no row of any was seen.
    """

    shares: tuple[float, ...]
    masses: tuple[float, ...]
    peak: float
    log_probs: tuple[float, ...]
    influences: tuple[float, ...] = ()


@torch.inference_mode()
def attribute_answer(  # noqa: PLR0913, PLR0917 - spelt out
    model: LoadedModel,
    prefill: PrefillResult,
    answer: list[int],
    passages: Sequence[Span],
    layers: Sequence[int],
    members: Sequence[Span] = (),
    exchange: AskingExchange | None = None,
) -> Attribution:
    """Replay an answer and see where its tokens look; leaves the cache as it is.

    Example, prefix [0, 2), one contributor [2, 6) with two passages, question [6, 9), answer of 2:

        passages    [2, 4) [4, 6)
        queries     positions 9 and 10, at layers where rows of [2, 6) came

    Args:
        model: the model.
        prefill: what the answer was decoded from, before or after decoding.
        answer: A >= 1 generated token ids.
        passages: global positions of each, in token order, none overlapping. Rows that did not
            travel are missed by nobody.
        layers: the publisher's sync layers.
        members: global positions of each member's span, in token order.
        exchange: asks members whose rows are not here, once more; None if there are none. Of
            passages of theirs it cannot be told which drew attention.

    Raises:
        ValueError: no answer, or passages overlap or are out of order.
    """
    if not answer:
        raise ValueError("an answer without tokens attends to nothing; expected at least one")
    if any(before.stop > after.start for before, after in pairwise(passages)):
        raise ValueError("passages overlap or are out of token order; sort and merge them")
    start = prefill.next_position
    known = [layer.before(start) for layer in prefill.cache.layers]
    positions = torch.arange(start, start + len(answer), device=model.device)
    watched = frozenset(layers) | (exchange.route.asks if exchange is not None else frozenset())
    view = WatchedRows(known, model.windows, positions, passages, watched, members, exchange)
    ids = torch.tensor(answer, dtype=torch.int64, device=model.device)
    hidden = run_model(model.backbone, ids, positions, view)
    return view.attribution(token_log_probs(model, prefill.logits, hidden[:-1], answer))


class WatchedRows:
    """A `KvView` that notes where the queries of one forward pass look, and keeps no rows.

    Args:
        known: rows of every block before the pass.
        windows: of every block.
        positions: [T] int64 of the tokens of the pass.
        passages: R ranges of global positions.
        layers: where to watch.
        members: M ranges of global positions.
        exchange: asks members whose rows are not known here; None if there are none.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - spelt out
        self,
        known: Sequence[LayerCache],
        windows: Sequence[int | None],
        positions: torch.Tensor,
        passages: Sequence[Span],
        layers: frozenset[int],
        members: Sequence[Span] = (),
        exchange: AskingExchange | None = None,
    ) -> None:
        self._exchange = exchange
        self.windows = windows
        self._known, self._positions = known, positions
        self._passages = passages
        self._members = members
        self._layers = layers
        self._num_weights = 0  # softmax rows seen: layers x Hq x T
        self._mass = torch.zeros(len(passages) + 1, dtype=torch.float64)  # [R + 1], last: the rest
        self._pointed = torch.zeros_like(self._mass)
        self._drawn = torch.zeros(len(members) + 1, dtype=torch.float64)  # [M + 1] likewise
        self._peak = 0.0

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """As `KvView.attend`."""
        positions, window = self._positions, self.windows[layer]
        joined = join_rows([self._known[layer], LayerCache(key, value, positions)])
        if layer not in self._layers:
            return attend_rows(query, joined, positions, window, scaling)
        scaled = query[0].float() * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        share = torch.ones(scaled.shape[:2], device=query.device)
        if self._exchange is None or layer not in self._exchange.route.asks:
            output = attend_rows(query, joined, positions, window, scaling)
        else:
            self._exchange.ask(layer, scaled.cpu().numpy(), int(positions[0]))
            own = attend_partly(scaled[None], joined, positions, window, 1.0)
            parts = self._exchange.parts(layer)
            output = merge_parts(*own, parts.values()).to(query.dtype)
            share = self._note_parts(own[1][0], parts)
        groups = joined.groups()
        by_group = zip(scaled.chunk(len(groups)), share.chunk(len(groups)), groups, strict=True)
        for of_group, share_of_group, rows in by_group:
            self._watch(of_group, share_of_group, rows, window)
        return output

    def _note_parts(self, lse: torch.Tensor, parts: Mapping[int, PartialAttention]) -> torch.Tensor:
        """Note what rows drew that are not here; the share [Hq, T] of those that are."""
        others = [torch.from_numpy(part.lse).to(lse.device) for part in parts.values()]
        shares = torch.softmax(torch.stack([lse, *others]), dim=0)
        for member, drawn in zip(parts, shares[1:], strict=True):
            self._drawn[member] += float(drawn.double().sum())
        return shares[0]

    def attribution(self, log_probs: tuple[float, ...]) -> Attribution:
        """What was seen so far."""
        pointed, drawn = self._pointed[:-1], self._drawn[:-1]
        masses = self._mass[:-1] / max(1, self._num_weights)
        return Attribution(
            shares=_of_all(pointed),
            masses=tuple(masses.tolist()),
            peak=self._peak,
            log_probs=log_probs,
            influences=_of_all(drawn),
        )

    def _watch(
        self, query: torch.Tensor, share: torch.Tensor, rows: LayerCache, window: int | None
    ) -> None:
        """Note the attention of scaled queries [Hq, T, D], of all or some heads, to their rows.

        Those have a share [Hq, T] of all attention.
        """
        owners = _owners(rows.positions, self._passages)
        members = _owners(rows.positions, self._members)
        is_inside = owners < len(self._passages)
        keys = rows.keys[0].float()
        peaks = torch.zeros(query.shape[0], device=query.device)
        for start in range(0, query.shape[1], _QUERIES_AT_ONCE):
            some = slice(start, start + _QUERIES_AT_ONCE)
            seen = visible(self._positions[some], rows.positions, window)
            weights = _weights(query[:, some], keys, seen, rows.biases) * share[:, some, None]
            drawn = _by_row(weights)
            self._mass.index_add_(0, owners.cpu(), drawn)
            self._drawn.index_add_(0, members.cpu(), drawn)
            self._pointed.index_add_(0, owners.cpu(), _by_row(weights.pow(_POWER)))
            if is_inside.any():
                peaks += weights[:, :, is_inside].amax(dim=-1).sum(dim=-1)
        self._num_weights += query.shape[0] * query.shape[1]
        self._peak = max(self._peak, float(peaks.max()) / query.shape[1])


def _by_row(weights: torch.Tensor) -> torch.Tensor:
    """[S] float64 on the CPU, of [Hq, T, S]: what each row drew."""
    return weights.double().sum(dim=(0, 1)).cpu()


def _of_all(drawn: torch.Tensor) -> tuple[float, ...]:
    """Shares of the sum; all 0 if that is 0."""
    return tuple((drawn / drawn.sum().clamp_min(1e-300)).tolist())


def _owners(positions: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
    """[S] int64: the span of each row; their number for none."""
    owners = torch.full_like(positions, len(spans))
    for number, span in enumerate(spans):
        owners[(positions >= span.start) & (positions < span.stop)] = number
    return owners


def _weights(
    query: torch.Tensor, keys: torch.Tensor, seen: torch.Tensor, biases: torch.Tensor | None
) -> torch.Tensor:
    """Attention [Hq, T, S] of scaled queries [Hq, T, D] to keys [Hkv, S, D], seen [T, S]."""
    heads, num_queries, size = query.shape
    grouped = query.reshape(keys.shape[0], -1, size)  # heads that share a key/value head
    scores = torch.bmm(grouped, keys.transpose(1, 2)).view(heads, num_queries, -1)
    if biases is not None:
        scores += biases.float()
    return torch.softmax(scores.masked_fill(~seen, -torch.inf), dim=-1)
