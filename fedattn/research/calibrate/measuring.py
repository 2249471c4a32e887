"""What a compression does to answers and bytes, on texts that no fit has seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from fedattn.core.compression import Compression
from fedattn.core.frames import check_frame
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.row_scores import RowScorer
from fedattn.core.spans import Member, build_layout
from fedattn.core.transfer import frame_spec, place_rows, read_frame, write_frame
from fedattn.core.types import HeadRows
from fedattn.model.engine import Engine
from fedattn.model.replay import ContextRows
from fedattn.research.calibrate.forest import HeadPast, Past
from fedattn.research.calibrate.questions import Questions
from fedattn.research.tasks.cases import Case

_BYTES_A_VALUE = 2  # of bf16

Parts = dict[int, list[HeadRows]]
"""What a publisher receives, by layer: a part of each contributor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a compression does, mean over some questions.

    Attributes:
        bytes_share: bytes that travelled, divided by those of bf16 at every block.
        divergence: KL from all rows uncompressed, along the answer that those give, nats a token.
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
    """One world of private texts and questions. Its rows are computed once, for all compressions.

    Args:
        engine: of the model.
        cases: questions about the same contexts.
    """

    def __init__(self, engine: Engine, cases: Sequence[Case]) -> None:
        self._model = engine.model
        prefix = engine.tokenizer.prefix()
        self._prefix_len = len(prefix)
        self._contexts = [
            ContextRows(self._model, prefix, engine.tokenizer.context(text))
            for text in cases[0].contexts
        ]
        self._num_tokens = sum(len(context.token_ids) for context in self._contexts)
        start = self._prefix_len + self._num_tokens
        self._questions = Questions(engine, cases, start, self._past(self._whole()))

    def measure(self, plan: SyncPlan, compression: Compression, scorer: RowScorer | None) -> Effect:
        """The effect of a compression, every row through its frame.

        Args:
            plan: sync layers of the publisher; contributors attend to nobody.
            compression: of every contributor.
            scorer: says which rows to keep.
        """
        num_bytes, parts = self._send(plan, compression, scorer)
        shape = self._model.shape
        all_bytes = self._num_tokens * shape.values_per_row * shape.num_layers * _BYTES_A_VALUE
        divergences, changes = zip(*self._questions.compare(self._past(parts)), strict=True)
        return Effect(
            bytes_share=num_bytes / all_bytes,
            divergence=float(np.mean(divergences)),
            nll_change=float(np.mean(changes)),
        )

    def _send(
        self, plan: SyncPlan, compression: Compression, scorer: RowScorer | None
    ) -> tuple[int, Parts]:
        """Bytes of all frames, and what comes out of them."""
        shape, rotary = self._model.shape, self._model.rotary
        members = self._members(plan, compression)
        num_bytes = 0
        parts: Parts = {layer: [] for layer in plan.layers}
        for layer in plan.layers:
            for member, context in zip(members, self._contexts, strict=True):
                rows, queries = context.rows[layer], context.queries[layer]
                frame = write_frame(member, layer, rows, queries, rotary, scorer)
                num_bytes += len(frame)
                checked = check_frame(frame, frame_spec(member, shape, layer))
                received = read_frame(checked, member, shape, rotary)
                parts[layer].append(place_rows(received, member, rotary))
        return num_bytes, parts

    def _whole(self) -> Parts:
        """All rows of all blocks, as computed."""
        layers = range(self._model.shape.num_layers)
        members = self._members(SyncPlan(tuple(layers)))
        return {
            layer: [
                place_rows(HeadRows.of(context.rows[layer]), member, self._model.rotary)
                for member, context in zip(members, self._contexts, strict=True)
            ]
            for layer in layers
        }

    def _members(
        self, plan: SyncPlan, compression: Compression | None = None
    ) -> tuple[Member, ...]:
        """The contributors, each as if it stood alone behind the prefix."""
        sizes = [len(context.token_ids) for context in self._contexts]
        layout = build_layout(
            num_layers=self._model.shape.num_layers,
            prefix_len=self._prefix_len,
            contributors=[(f"contributor-{at + 1}", size) for at, size in enumerate(sizes)],
            publisher=("publisher", 1),
            plans=RolePlans(contributors=SyncPlan(()), publisher=plan),
            compression=compression,
            independent=True,
        )
        return layout.contributors

    def _past(self, parts: Parts) -> Past:
        """What every question sees."""
        context, size = self._contexts[0], self._prefix_len
        layers = map(context.keys_and_values, range(self._model.shape.num_layers))
        prefix = [(keys[0, :, :size], values[0, :, :size]) for keys, values in layers]
        return past_of(prefix, parts)


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
    for part in parts:
        here = part.heads[head]
        own = np.zeros(len(part.keys), np.float32) if part.biases is None else part.biases
        keys, values, biases = (
            torch.cat([known, torch.tensor(new[here]).to(known)])
            for known, new in ((keys, part.keys), (values, part.values), (biases, own))
        )
    return keys, values, biases


def worlds_of(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """Cases of the same contexts together, as they stand side by side."""
    for _, same in groupby(cases, key=lambda case: case.contexts):
        yield list(same)
