"""Recovering the tokens of a text whose rows stay with their owner, by asking.

The attacker is the publisher: it has the weights, the public prefix, and the answers to queries.
Candidates run through the blocks below the lowest asked one, behind what was found so far; the
one whose key fits best to what was heard is taken (`Heard`).
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from fedattn.core.answer_bounds import AnswerBounds
from fedattn.core.asked import DEFAULT_QUERY_CODEC, query_codec_by_name
from fedattn.core.codecs import VectorCodec
from fedattn.core.compression import Compression
from fedattn.core.plans import NOWHERE, RolePlans, SyncPlan
from fedattn.core.spans import SessionLayout, build_layout
from fedattn.core.types import FloatArray
from fedattn.model.cache import FederatedCache
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import Prefiller, forward_tokens
from fedattn.model.prompt import PromptTokenizer
from fedattn.research.leak.attacks import Effort, Recovery
from fedattn.research.leak.candidates import candidate_rows, ranked
from fedattn.research.leak.heard import Heard, Told
from fedattn.research.leak.queries import QueryStyle, chosen_queries
from fedattn.research.simulate import CaseTokens, SimulationSettings, Simulator

ROUNDING = 2.0**-9 / 3**0.5
"""Standard deviation of what bf16 rounds, as a share."""
_FIRST, _LATER = 64, 512
"""Candidates in a forward pass: mostly the first ones will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a text is asked about.

    Attributes:
        plan: blocks at which its owner answers.
        bounds: that the owner sets.
        codec: of queries and answers.
    """

    plan: SyncPlan
    bounds: AnswerBounds = field(default_factory=AnswerBounds)
    codec: VectorCodec = field(default_factory=lambda: query_codec_by_name(DEFAULT_QUERY_CODEC))

    @property
    def plans(self) -> RolePlans:
        """No rows travel."""
        return RolePlans(contributors=NOWHERE, publisher=NOWHERE, asked=self.plan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What a publisher asked of one text, and heard.

    Attributes:
        prefix: token ids of the public prefix.
        truth: token ids of the text; the attacker knows only how many there are.
        told: by block.
    """

    prefix: tuple[int, ...]
    truth: tuple[int, ...]
    told: Mapping[int, Sequence[Told]]

    @property
    def num_tokens(self) -> int:
        """Tokens whose queries were asked at a block."""
        return max(sum(one.queries.shape[1] for one in told) for told in self.told.values())


class ListeningExchange(InProcessExchange):
    """Writes down what is asked of the first contributor and what it answers.

    Args:
        store: of the session.
        index: place of the participant.
        told: by block; grows.
    """

    def __init__(self, store: KvStore, index: int, told: dict[int, list[Told]]) -> None:
        super().__init__(store, index)
        self._told = told

    def ask(self, layer: int, queries: FloatArray, first_position: int) -> None:
        super().ask(layer, queries, first_position)
        rounded = _rounded(queries, self._store.query_codec)
        part = self._parts[layer][0]
        self._told.setdefault(layer, []).append(Told(queries=rounded, part=part))


def overhear(
    prefiller: Prefiller,
    tokenizer: PromptTokenizer,
    token_ids: list[int],
    question: str,
    asking: Asking,
    num_new: int = 32,
) -> Conversation:
    """What an honest publisher hears while it answers one question about one text.

    Args:
        prefiller: of the model.
        tokenizer: of the model.
        token_ids: of the private text.
        question: what is asked.
        asking: where and how.
        num_new: tokens of the answer at most.

    Raises:
        ContextTooLongError: text, question and answer do not fit the model's window.
    """
    told: dict[int, list[Told]] = {}
    simulator = Simulator(prefiller, tokenizer, partial(ListeningExchange, told=told))
    tokens = CaseTokens(
        prefix=tokenizer.prefix(),
        contexts=[token_ids],
        question=tokenizer.question(question),
        answer=tokenizer.plain(question)[:1],  # of no interest
    )
    settings = SimulationSettings(
        plans=asking.plans,
        compression=Compression(),
        max_new_tokens=num_new,
        asked=(0,),
        query_codec=asking.codec.name,
        bounds=asking.bounds,
    )
    simulator.run_tokens(tokens, settings, lambda _: False)
    return Conversation(prefix=tuple(tokens.prefix), truth=tuple(token_ids), told=told)


def interrogate(
    prefiller: Prefiller,
    prefix: list[int],
    token_ids: list[int],
    asking: Asking,
    style: QueryStyle,
) -> Conversation:
    """Ask about one text with queries of one's own making.

    Args:
        prefiller: of the model.
        prefix: token ids of the public prefix, at least one.
        token_ids: of the private text, at least one.
        asking: where and how.
        style: which queries.

    Raises:
        CorruptFrameError: the owner's bounds refuse the queries.
    """
    model = prefiller.model
    layout = _layout(len(prefix), len(token_ids), asking, model.shape.num_layers)
    store = KvStore(
        layout,
        model.shape,
        model.rotaries,
        windows=model.windows,
        query_codec=asking.codec,
        bounds=asking.bounds,
    )
    prefiller.contribute(layout.members[0], prefix, token_ids, InProcessExchange(store, 0))
    told: dict[int, list[Told]] = {}
    exchange = ListeningExchange(store, 1, told)
    made = chosen_queries(model, prefix, asking.plan.layers, style)
    for layer, queries in made.items():
        exchange.ask(layer, queries, layout.publisher.span.start)
    return Conversation(prefix=tuple(prefix), truth=tuple(token_ids), told=told)


def _layout(prefix_len: int, length: int, asking: Asking, num_layers: int) -> SessionLayout:
    return build_layout(
        num_layers=num_layers,
        prefix_len=prefix_len,
        contributors=[("contributor", length)],
        publisher=("publisher", 1),
        plans=asking.plans,
        asked=["contributor"],
    )


def _rounded(queries: FloatArray, codec: VectorCodec) -> FloatArray:
    vectors = queries.reshape(-1, queries.shape[-1])
    data = memoryview(codec.encode_vectors(vectors))
    return codec.decode_vectors(data, *vectors.shape).reshape(queries.shape)


@torch.inference_mode()
def reconstruct(
    model: LoadedModel, conversation: Conversation, effort: Effort, noise: float = 0.0
) -> Recovery:
    """Try tokens one position after the other, behind what was found so far.

    What was found wrongly stays, and spoils the rows computed behind it.

    Args:
        model: the model.
        conversation: what was heard.
        effort: how much is tried; of the blocks, the lowest.
        noise: that the owner is known to add, as `AnswerBounds.noise`.
    """
    begun, error = time.monotonic(), math.hypot(noise, ROUNDING)
    layers = sorted(conversation.told)[: effort.num_blocks]
    heads = model.shape.num_kv_heads
    heard = {layer: Heard(conversation.told[layer], heads, error) for layer in layers}
    cache = FederatedCache(model.windows, model.device)
    start = len(conversation.prefix)
    logits = _extend(model, cache, conversation.prefix, range(start))
    found, gaps = [], []
    for position in range(start, start + len(conversation.truth)):
        token, gap = _best(model, cache, heard, logits, position, effort)
        found.append(token)
        gaps.append(gap)
        logits = _extend(model, cache, [token], [position])
        for layer, of_layer in heard.items():
            rows = cache.layers[layer]
            of_layer.take_off(rows.keys[0, :, -1:].float(), rows.values[0, :, -1:].float())
    return Recovery(
        truth=conversation.truth,
        found=tuple(found),
        gaps=tuple(gaps),
        seconds=time.monotonic() - begun,
    )


def _best(  # noqa: PLR0913 - spelt out
    model: LoadedModel,
    cache: FederatedCache,
    heard: Mapping[int, Heard],
    logits: torch.Tensor,
    position: int,
    effort: Effort,
) -> tuple[int, float]:
    """The token that fits best, and the gap to the second best."""
    tried = logits.argsort(descending=True)[: effort.num_candidates]
    far = torch.empty(0)
    for batch in _batches(tried):
        rows = candidate_rows(model, cache.layers, batch, position, list(heard))
        logs = [one.distances(rows[layer][0]).log() for layer, one in heard.items()]
        far = torch.cat([far, torch.stack(logs).mean(dim=0).exp()])
        best = ranked(tried[: len(far)], far)
        if best[1] >= effort.enough:
            break
    return best


def _batches(tried: torch.Tensor) -> Iterator[torch.Tensor]:
    yield tried[:_FIRST]
    for start in range(_FIRST, len(tried), _LATER):
        yield tried[start : start + _LATER]


def _extend(
    model: LoadedModel, cache: FederatedCache, token_ids: Sequence[int], positions: Sequence[int]
) -> torch.Tensor:
    """Logits [V] after more tokens."""
    hidden = forward_tokens(model, cache, list(token_ids), positions)
    logits: torch.Tensor = model.head(hidden[-1:])[0].float()
    return logits
