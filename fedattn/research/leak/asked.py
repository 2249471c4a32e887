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

import torch

from fedattn.core.answer_bounds import AnswerBounds
from fedattn.core.asked import DEFAULT_QUERY_CODEC, query_codec_by_name, tokens_a_piece
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
_ANSWER_TOKENS = 32
"""Of an honest publisher's answer at most."""
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
        return max(sum(len(one.queries[0]) for one in told) for told in self.told.values())


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
) -> Conversation:
    """What an honest publisher hears while it answers one question about one text.

    Args:
        prefiller: of the model.
        tokenizer: of the model.
        token_ids: of the private text.
        question: what is asked.
        asking: where and how.

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
        max_new_tokens=_ANSWER_TOKENS,
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
        heads, num_tokens, size = queries.shape
        at_once = tokens_a_piece(heads, size, asking.codec)
        for first in range(0, num_tokens, at_once):
            some = queries[:, first : first + at_once]
            exchange.ask(layer, some, layout.publisher.span.start)
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
    model: LoadedModel,
    conversation: Conversation,
    effort: Effort,
    noise: float = 0.0,
    *,
    is_guided: bool = False,
) -> Recovery:
    """Try tokens one position after the other, behind what was found so far.

    What was found wrongly stays, and spoils the rows computed behind it.

    Args:
        model: the model.
        conversation: what was heard.
        effort: how much is tried; of the blocks, the lowest.
        noise: that the owner is known to add, as `AnswerBounds.noise`.
        is_guided: whether each token is sought behind the true ones: what an attacker finds who
            makes up for errors, at best.
    """
    begun = time.monotonic()
    search = _Search(model, conversation, effort, math.hypot(noise, ROUNDING))
    steps = []
    for position, token in enumerate(conversation.truth, start=len(conversation.prefix)):
        found, gap = search.best(position)
        search.go_on(token if is_guided else found, position)
        steps.append((found, gap))
    return Recovery(
        truth=conversation.truth,
        found=tuple(token for token, _ in steps),
        gaps=tuple(gap for _, gap in steps),
        seconds=time.monotonic() - begun,
    )


class _Search:
    """The state of a reconstruction: rows of prefix and found tokens, and what they leave."""

    def __init__(
        self, model: LoadedModel, conversation: Conversation, effort: Effort, error: float
    ) -> None:
        self._model, self._effort = model, effort
        self._heard = {
            layer: Heard(conversation.told[layer], model.shape.num_kv_heads, error)
            for layer in sorted(conversation.told)[: effort.num_blocks]
        }
        self._cache = FederatedCache(model.windows, model.device)
        prefix = conversation.prefix
        self._logits = self._extend(prefix, range(len(prefix)))

    def go_on(self, token: int, position: int) -> None:
        """Take a token for known."""
        self._logits = self._extend([token], [position])
        for layer, heard in self._heard.items():
            rows = self._cache.layers[layer]
            heard.take_off(rows.keys[0, :, -1:].float(), rows.values[0, :, -1:].float())

    def best(self, position: int) -> tuple[int, float]:
        """The token that fits best at a position, and the gap to the second best."""
        tried = self._logits.argsort(descending=True)[: self._effort.num_candidates]
        known, far = self._cache.layers, torch.empty(0)
        for batch in _batches(tried):
            rows = candidate_rows(self._model, known, batch, position, list(self._heard))
            logs = [one.distances(*rows[layer]).log() for layer, one in self._heard.items()]
            far = torch.cat([far, torch.stack(logs).mean(dim=0).exp()])
            best = ranked(tried[: len(far)], far)
            if best[1] >= self._effort.enough:
                break
        return best

    def _extend(self, token_ids: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Logits [V] after more tokens."""
        hidden = forward_tokens(self._model, self._cache, list(token_ids), positions)
        logits: torch.Tensor = self._model.head(hidden[-1:])[0].float()
        return logits


def _batches(tried: torch.Tensor) -> Iterator[torch.Tensor]:
    yield tried[:_FIRST]
    for start in range(_FIRST, len(tried), _LATER):
        yield tried[start : start + _LATER]
