"""What a compression does to answers and bytes, on texts that no fit has seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.plans import RolePlans, shared_plan
from fedattn.core.row_scores import RowScorer
from fedattn.core.spans import build_layout
from fedattn.core.types import HeadRows
from fedattn.model.cache import FederatedCache
from fedattn.model.engine import Engine
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.prefill import forward_tokens
from fedattn.research.calibrate.forest import HeadPast, Past
from fedattn.research.calibrate.questions import Questions
from fedattn.research.tasks.cases import Case

Parts = dict[int, list[HeadRows]]
"""What a publisher receives, by layer: a part of each contributor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a compression does, mean over some questions.

    Attributes:
        bytes_share: bytes that travelled, divided by those of bf16 at every block.
        divergence: KL from all rows in bf16, along the answer that those give, nats a token.
        nll_change: of the given answers against the same, nats a token.
    """

    bytes_share: float
    divergence: float
    nll_change: float

    @classmethod
    def mean(cls, effects: Sequence["Effect"]) -> "Effect":
        """Of several worlds."""
        return cls(
            bytes_share=float(np.mean([one.bytes_share for one in effects])),
            divergence=float(np.mean([one.divergence for one in effects])),
            nll_change=float(np.mean([one.nll_change for one in effects])),
        )


class WorldMeter:
    """One world of private texts and questions, asked in sessions of many kinds.

    Contributors attend to each other as in a session, every row through its frame: what rounding
    and missing rows do to those that read them is seen too. All questions run in one pass.

    Args:
        engine: of the model.
        cases: questions about the same contexts.

    Attributes:
        whole: what the publisher sees of every row of every block in bf16, the measure of all.
        whole_bytes: of its frames.
        questions: held against that.
    """

    def __init__(self, engine: Engine, cases: Sequence[Case]) -> None:
        self._engine = engine
        tokenizer, model = engine.tokenizer, engine.model
        self._prefix = tokenizer.prefix()
        self._spans = [tokenizer.context(text) for text in cases[0].contexts]
        cache = FederatedCache(model.windows, model.device)
        with torch.inference_mode():
            forward_tokens(model, cache, self._prefix, range(len(self._prefix)))
        self._prefix_rows = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
        every = shared_plan(range(model.shape.num_layers))
        self.whole, self.whole_bytes = self.run(every, Compression(codec=codec_by_name("bf16")))
        start = len(self._prefix) + sum(map(len, self._spans))
        self.questions = Questions(engine, cases, start, self.whole)

    def run(
        self, plans: RolePlans, compression: Compression, scorer: RowScorer | None = None
    ) -> tuple[Past, int]:
        """A session as far as the question.

        Args:
            plans: sync layers of both roles.
            compression: of every contributor.
            scorer: says which rows to keep.

        Returns:
            What the publisher sees, and the bytes of all frames.
        """
        model = self._engine.model
        layout = build_layout(
            num_layers=model.shape.num_layers,
            prefix_len=len(self._prefix),
            contributors=[
                (f"contributor-{at}", len(span)) for at, span in enumerate(self._spans, start=1)
            ],
            publisher=("publisher", 1),
            plans=plans,
            compression=compression,
        )
        store = KvStore(layout, model.shape, model.rotaries, scorer=scorer)
        for index, (member, span) in enumerate(zip(layout.contributors, self._spans, strict=True)):
            exchange = InProcessExchange(store, index)
            self._engine.prefiller.contribute(member, self._prefix, span, exchange)
        parts = {
            layer: [store.rows(index, layer) for index in range(len(self._spans))]
            for layer in plans.publisher.layers
        }
        return past_of(self._prefix_rows, parts), store.uploaded_bytes

    def measure(
        self, plans: RolePlans, compression: Compression, scorer: RowScorer | None = None
    ) -> Effect:
        """What sessions of a kind do to the questions; as `run`."""
        past, num_bytes = self.run(plans, compression, scorer)
        divergences, changes = zip(*self.questions.compare(past), strict=True)
        return Effect(
            bytes_share=num_bytes / self.whole_bytes,
            divergence=float(np.mean(divergences)),
            nll_change=float(np.mean(changes)),
        )


@torch.inference_mode()
def past_of(prefix: Sequence[tuple[torch.Tensor, torch.Tensor]], parts: Parts) -> Past:
    """What a publisher's tokens see: the public prefix, then what was received.

    Args:
        prefix: keys and values [Hkv, P, D] of every layer.
        parts: of every layer at which it receives.
    """
    return [
        [
            _head_past(keys[head], values[head], parts.get(layer, []), head)
            for head in range(len(keys))
        ]
        for layer, (keys, values) in enumerate(prefix)
    ]


def _head_past(
    keys: torch.Tensor, values: torch.Tensor, parts: Sequence[HeadRows], head: int
) -> HeadPast:
    biases = keys.new_zeros(len(keys))
    positions = torch.arange(len(keys), device=keys.device)
    for part in parts:
        here = part.heads[head]
        own = np.zeros(len(part.keys), np.float32) if part.biases is None else part.biases
        keys, values, biases, positions = (
            torch.cat([known, torch.tensor(new[here]).to(known)])
            for known, new in (
                (keys, part.keys),
                (values, part.values),
                (biases, own),
                (positions, part.positions),
            )
        )
    return keys, values, biases, positions


def worlds_of(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """Cases of the same contexts together, as they stand side by side."""
    for _, same in groupby(cases, key=lambda case: case.contexts):
        yield list(same)
