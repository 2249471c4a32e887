"""A participant's part of one session: run the blocks over the own span, exchanging on the way."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass

import torch

from fedattn.core.spans import Member, Role
from fedattn.core.types import KvShape
from fedattn.model.attention import run_model
from fedattn.model.cache import FederatedCache, LastUploadDone
from fedattn.model.cores import Cores
from fedattn.model.exchange import KvExchange
from fedattn.model.layer_cache import LayerCache
from fedattn.model.loading import LoadedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillResult:
    """What the publisher decodes from.

    Attributes:
        cache: rows of every block.
        logits: [V] float32 for the token after the span.
        next_position: global position of that token.
        last_queries: of every block, the query of the token before it, [1, Hq, 1, D] after RoPE and
            scaled as attention scales it.
    """

    cache: FederatedCache
    logits: torch.Tensor
    next_position: int
    last_queries: tuple[torch.Tensor, ...] = ()


class Prefiller:
    """Runs prefills on one model. Keeps the public prefix's rows, which no session changes.

    Between blocks they give way, so that answers that run meanwhile are not held up.

    Attributes:
        cores: by which prefills take turns.
        num_forwards: spans it has run so far.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.cores = Cores()
        self._prefix: tuple[tuple[int, ...], list[LayerCache]] = ((), [])
        self.num_forwards = 0

    @property
    def shape(self) -> KvShape:
        return self.model.shape

    @torch.inference_mode()
    def contribute(
        self, member: Member, prefix: list[int], token_ids: list[int], exchange: KvExchange
    ) -> None:
        """A contributor's part: compute and send, up to the last block anybody needs.

        Args:
            member: its span and plan.
            prefix: token ids of the public prefix.
            token_ids: token ids of the own span.
            exchange: where rows go to and come from.
        """
        if exchange.route.last_needed is None:
            return
        cache = self._start(prefix, exchange, keeps_rows=False)
        with suppress(LastUploadDone):
            self._forward(member, token_ids, cache)

    @torch.inference_mode()
    def prefill_as_responder(
        self, member: Member, prefix: list[int], token_ids: list[int], exchange: KvExchange
    ) -> FederatedCache:
        """As `contribute`, but on through all blocks, for a contributor that answers too."""
        cache = self._start(prefix, exchange, keeps_rows=True)
        self._forward(member, token_ids, cache)
        return cache

    @torch.inference_mode()
    def publish(
        self, member: Member, prefix: list[int], token_ids: list[int], exchange: KvExchange
    ) -> PrefillResult:
        """The publisher's part: all blocks, and the logits of the first answer token."""
        if member.role is not Role.PUBLISHER or not token_ids:
            raise ValueError("publish needs the publisher and at least one token")
        cache = self._start(prefix, exchange, keeps_rows=True)
        hidden = self._forward(member, token_ids, cache)
        return self._result(cache, hidden, member.span.stop)

    @torch.inference_mode()
    def resume(
        self, member: Member, token_ids: list[int], known: list[LayerCache]
    ) -> PrefillResult:
        """As `publish`, when all rows before the last tokens of the span are known.

        Args:
            member: the publisher.
            token_ids: the last tokens of its span, at least one.
            known: rows of every block before them; they are shared, and never written.
        """
        cache = FederatedCache(self.model.windows, self.model.device)
        cache.seed(known)
        stop = member.span.stop
        hidden = self._run(cache, token_ids, range(stop - len(token_ids), stop))
        return self._result(cache, hidden, stop)

    def _result(self, cache: FederatedCache, hidden: torch.Tensor, stop: int) -> PrefillResult:
        return PrefillResult(
            cache=cache,
            logits=self.model.head(hidden[-1:])[0].float(),
            next_position=stop,
            last_queries=tuple(cache.last_queries),
        )

    def warm_prefix(self, prefix: list[int]) -> list[LayerCache]:
        """Compute the rows of a public prefix ahead of the first session; they are shared."""
        with torch.inference_mode():
            return self._prefix_rows(tuple(prefix))

    def _forward(self, member: Member, token_ids: list[int], cache: FederatedCache) -> torch.Tensor:
        """Run the tokens of the span that take part, trading rows on the way."""
        if len(token_ids) != len(member.span):
            raise ValueError(f"{len(token_ids)} tokens do not fill {member.span}")
        positions = member.input_positions().tolist()
        kept = [token_ids[position - member.span.start] for position in positions]
        computed = [position - member.position_offset for position in positions]
        hidden = self._run(cache, kept, computed)
        cache.end_exchange()
        return hidden

    def _run(
        self, cache: FederatedCache, token_ids: list[int], positions: Sequence[int]
    ) -> torch.Tensor:
        """As `forward_tokens`, giving way between blocks."""
        self.num_forwards += 1
        with self.cores.prefilling() as turn:
            cache.between_blocks = turn.away
            hidden = forward_tokens(self.model, cache, token_ids, positions)
        cache.between_blocks = nullcontext
        return hidden

    def _start(
        self, prefix: list[int], exchange: KvExchange, *, keeps_rows: bool
    ) -> FederatedCache:
        cache = FederatedCache(
            self.model.windows, self.model.device, exchange=exchange, keeps_rows=keeps_rows
        )
        if prefix:
            cache.seed(self._prefix_rows(tuple(prefix)))
        return cache

    def _prefix_rows(self, prefix: tuple[int, ...]) -> list[LayerCache]:
        kept, rows = self._prefix
        if kept != prefix:
            cache = FederatedCache(self.model.windows, self.model.device)
            forward_tokens(self.model, cache, list(prefix), range(len(prefix)))
            rows = cache.layers
            self._prefix = (prefix, rows)
        return rows


def forward_tokens(
    model: LoadedModel, cache: FederatedCache, token_ids: list[int], positions: Sequence[int]
) -> torch.Tensor:
    """Run tokens through all blocks, extending the cache.

    Args:
        model: the model.
        cache: rows before these tokens.
        token_ids: T tokens.
        positions: their T global positions, strictly increasing.

    Returns:
        [T, d] hidden states after the final norm.
    """
    ids = torch.tensor(token_ids, dtype=torch.int64, device=model.device)
    cache.query_positions = torch.tensor(positions, dtype=torch.int64, device=model.device)
    return run_model(model.backbone, ids, cache.query_positions, cache)
