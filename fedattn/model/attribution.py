"""From which visible tokens an answer was drawn, by the attention of the answer's own tokens.

The mean attention hardly tells: most heads spread theirs over everything, so long passages win. A
few heads copy, and point at single rows (retrieval heads, arXiv 2404.15574). A passage's share
therefore counts each attention weight in its fourth power, which leaves nothing of what is spread
and nearly all of what is pointed. First tokens and the own question draw much attention whatever
is asked, so shares are among the passages alone.

Each token is judged by the query that chose it, its predecessor's, since a retrieval head looks at
the row that it is about to copy. The first one's is the prompt's last query, which prefill keeps.
For the others the answer but its last token is replayed by the blocks of transformers, whoever
decoded it. Cost: A - 1 tokens through the blocks up to the last given layer, nothing for A = 1, and
at the given layers A x S weights a head.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import torch

from fedattn.core.spans import Span
from fedattn.model.asked import merge_parts
from fedattn.model.attending import attend_partly, attend_rows
from fedattn.model.attention import run_model, score_factor
from fedattn.model.exchange import AskingExchange
from fedattn.model.layer_cache import LayerCache, join_rows
from fedattn.model.loading import LoadedModel
from fedattn.model.positions import visible
from fedattn.model.prefill import PrefillResult

_POWER = 4
_QUERIES_AT_ONCE = 64
"""Weights of this many queries are in memory together, [Hq, 64, S]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What the queries that chose an answer's tokens attended to, at the given layers.

    Attributes:
        shares: how much of the answer each passage gave, 0 to 1; they add up to 1, or are all 0 if
            no row of any passage was seen.
        masses: attention on each passage, of 1 for all that a query sees (prefix, passages, own
            question, answer so far); mean over queries, query heads and layers.
        peak: attention on the single row of all passages that a query attends to most, 0 to 1;
            mean over queries, of the head that has the most.
        influences: how much of the attention on all members' rows each member's drew, 0 to 1; they
            add up to 1, or are all 0 if no row of any was seen.
    """

    shares: tuple[float, ...]
    masses: tuple[float, ...]
    peak: float
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
    """Replay an answer and see where the model looked for it; leaves the cache as it is.

    Example, prefix [0, 2), one contributor [2, 6) with two passages, question [6, 9), answer of 2:

        passages    [2, 4) [4, 6)
        queries     positions 8 and 9, at layers where rows of [2, 6) came

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
    positions = torch.arange(start - 1, start + len(answer) - 1, device=model.device)
    watched = frozenset(layers) | (exchange.route.asks if exchange is not None else frozenset())
    first = prefill.last_queries
    view = WatchedRows(known, model.windows, positions, first, passages, watched, members, exchange)
    replayed = torch.tensor(answer[:-1], dtype=torch.int64, device=model.device)
    if len(replayed):
        with suppress(SeenEnough):
            run_model(model.backbone, replayed, positions[1:], view)
    else:
        view.watch_first()
    return view.attribution()


class SeenEnough(Exception):  # noqa: N818 - control flow, not an error
    """Ends a replay at the last layer to watch."""


class WatchedRows:
    """A `KvView` that notes where queries look, and keeps no rows.

    Args:
        known: rows of every block before the replay.
        windows: of every block.
        positions: [A] int64 of the queries; the replay's are all but the first.
        first: of every block, the query [1, Hq, 1, D] before the replay, scaled.
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
        first: Sequence[torch.Tensor],
        passages: Sequence[Span],
        layers: frozenset[int],
        members: Sequence[Span] = (),
        exchange: AskingExchange | None = None,
    ) -> None:
        self._exchange = exchange
        self.windows = windows
        self._known, self._positions = known, positions
        self._first = first
        self._passages = passages
        self._members = members
        self._layers = layers
        self._num_weights = 0  # softmax rows seen: layers x Hq x A
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
        """As `KvView.attend`.

        Raises:
            SeenEnough: nothing above this layer is watched.
        """
        positions = self._positions[1:]
        joined = join_rows([self._known[layer], LayerCache(key, value, positions)])
        if layer not in self._layers:
            output = attend_rows(query, joined, positions, self.windows[layer], scaling)
        else:
            scaled = query * score_factor(query, scaling)
            queries = torch.cat([self._first[layer], scaled], dim=2)
            output = self._watch_all(layer, queries, joined)[:, :, 1:].to(query.dtype)
        if layer >= max(self._layers, default=0):
            raise SeenEnough
        return output

    def watch_first(self) -> None:
        """Note what the query before the replay looks at, where nothing is replayed."""
        for layer in sorted(self._layers):
            self._watch_all(layer, self._first[layer], self._known[layer])

    def attribution(self) -> Attribution:
        """What was seen so far."""
        pointed, drawn = self._pointed[:-1], self._drawn[:-1]
        masses = self._mass[:-1] / max(1, self._num_weights)
        return Attribution(
            shares=_of_all(pointed),
            masses=tuple(masses.tolist()),
            peak=self._peak,
            influences=_of_all(drawn),
        )

    def _watch_all(self, layer: int, query: torch.Tensor, rows: LayerCache) -> torch.Tensor:
        """Note the attention of scaled queries [1, Hq, A, D] to the rows of a block, and to those
        that others have; what they make of all of them, [1, Hq, A, D] float32.
        """
        window = self.windows[layer]
        output, lse = attend_partly(query, rows, self._positions, window, 1.0)
        share = torch.ones_like(lse[0])
        if self._exchange is not None and layer in self._exchange.route.asks:
            queries = query[0].float().cpu().numpy()
            self._exchange.ask(layer, queries, int(self._positions[0]))
            parts = self._exchange.parts(layer)
            others = [torch.tensor(part.lse, device=lse.device) for part in parts.values()]
            shares = torch.softmax(torch.stack([lse[0], *others]), dim=0)
            for member, drawn in zip(parts, shares[1:], strict=True):
                self._drawn[member] += float(drawn.double().sum())
            output, share = merge_parts(output, lse, parts.values()), shares[0]
        groups = rows.groups()
        heads = query[0].float().chunk(len(groups)), share.chunk(len(groups))
        for of_group, share_of_group, own in zip(*heads, groups, strict=True):
            self._watch(of_group, share_of_group, own, window)
        return output

    def _watch(
        self, query: torch.Tensor, share: torch.Tensor, rows: LayerCache, window: int | None
    ) -> None:
        """Note the attention of scaled queries [Hq, A, D], of all or some heads, to their rows.

        Those have a share [Hq, A] of all attention.
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
