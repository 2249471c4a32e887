"""What a compression does to answers and bytes, on texts that no fit has seen."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from fedattn.core.compression import Compression
from fedattn.core.frames import check_frame
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.routing import Route, route_session
from fedattn.core.row_scores import RowScorer
from fedattn.core.spans import SessionLayout, build_layout
from fedattn.core.transfer import frame_spec, place_rows, read_frame, write_frame
from fedattn.core.types import HeadRows, KvRows
from fedattn.model.decode import answer_log_probs, answer_nll
from fedattn.model.engine import Engine
from fedattn.model.prefill import PrefillResult, forward_tokens
from fedattn.model.replay import ContextRows
from fedattn.research.tasks.cases import Case

_ANSWER_TOKENS = 12
"""Of the reference answer; the given ones are short."""
_BYTES_A_VALUE = 2  # of bf16

Parts = dict[int, list[HeadRows]]
"""What a publisher receives, by layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Means over the questions of some worlds.

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

    @torch.inference_mode()
    def __init__(self, engine: Engine, cases: Sequence[Case]) -> None:
        self._engine = engine
        self._prefix = tokenizer_prefix = engine.tokenizer.prefix()
        num_layers = engine.model.shape.num_layers
        contexts = [
            ContextRows(engine.model, tokenizer_prefix, engine.tokenizer.context(text))
            for text in cases[0].contexts
        ]
        self._sizes = [len(context.token_ids) for context in contexts]
        self._rows = [[one.rows(layer) for layer in range(num_layers)] for one in contexts]
        plan = SyncPlan(tuple(range(num_layers)))
        whole = self._received_whole(plan)
        self._questions = [self._ask(case, plan, whole) for case in cases]

    def measure(
        self, plan: SyncPlan, compression: Compression, scorer: RowScorer | None
    ) -> Iterator[Effect]:
        """The effect of a compression on each question, every row through its frame.

        Args:
            plan: sync layers of the publisher; contributors attend to nobody.
            compression: of every contributor.
            scorer: says which rows to keep.
        """
        num_bytes, parts = self._received(plan, compression, scorer)
        num_values = sum(self._sizes) * self._engine.model.shape.values_per_row
        all_bytes = num_values * self._engine.model.shape.num_layers * _BYTES_A_VALUE
        share = num_bytes / all_bytes
        for asked in self._questions:
            yield self._compare(asked, plan, parts, share)

    def _received(
        self, plan: SyncPlan, compression: Compression, scorer: RowScorer | None
    ) -> tuple[int, Parts]:
        """Bytes of all frames, and what comes out of them."""
        shape, rotary = self._engine.model.shape, self._engine.model.rotary
        members = self._lay_out(plan, 1, compression).contributors
        num_bytes = 0
        parts: Parts = {layer: [] for layer in plan.layers}
        for layer in plan.layers:
            for member, rows in zip(members, self._rows, strict=True):
                frame = write_frame(member, layer, rows[layer], rotary, scorer)
                num_bytes += len(frame)
                checked = check_frame(frame, frame_spec(member, shape, layer))
                received = read_frame(checked, member, shape, rotary)
                parts[layer].append(place_rows(received, member, rotary))
        return num_bytes, parts

    def _received_whole(self, plan: SyncPlan) -> Parts:
        members = self._lay_out(plan, 1).contributors
        rotary = self._engine.model.rotary

        def whole(rows: KvRows, index: int) -> HeadRows:
            return place_rows(HeadRows.of(rows), members[index], rotary)

        return {
            layer: [whole(rows[layer], index) for index, rows in enumerate(self._rows)]
            for layer in plan.layers
        }

    def _ask(self, case: Case, plan: SyncPlan, whole: Parts) -> "_Question":
        tokenizer = self._engine.tokenizer
        question, given = tokenizer.question(case.question), tokenizer.plain(case.answer)
        prefill = self._prefill(question, plan, whole)
        nll = answer_nll(self._engine.model, prefill, given)
        answer, log_probs = self._greedy(prefill)
        return _Question(question, given, nll, answer, log_probs)

    def _greedy(self, prefill: PrefillResult) -> tuple[list[int], torch.Tensor]:
        """The most likely answer, an end token included, and [A, V] log-probabilities."""
        model, logits = self._engine.model, [prefill.logits]
        answer = [int(prefill.logits.argmax())]
        while len(answer) < _ANSWER_TOKENS and answer[-1] not in model.end_token_ids:
            at = prefill.next_position + len(answer) - 1
            hidden = forward_tokens(model, prefill.cache, answer[-1:], [at])
            logits.append(model.head(hidden)[0].float())
            answer.append(int(logits[-1].argmax()))
        return answer, torch.log_softmax(torch.stack(logits), dim=-1)

    @torch.inference_mode()
    def _compare(self, asked: "_Question", plan: SyncPlan, parts: Parts, share: float) -> Effect:
        prefill = self._prefill(asked.tokens, plan, parts)
        model, expected = self._engine.model, asked.log_probs
        log_probs = answer_log_probs(model, prefill, asked.answer)
        divergence = (expected.exp() * (expected - log_probs)).sum(dim=-1).mean()
        return Effect(
            bytes_share=share,
            divergence=float(divergence),
            nll_change=answer_nll(model, prefill, asked.given) - asked.nll,
        )

    def _prefill(self, question: list[int], plan: SyncPlan, parts: Parts) -> PrefillResult:
        layout = self._lay_out(plan, len(question))
        exchange = _Received(route_session(layout)[-1], parts)
        return self._engine.prefiller.publish(layout.publisher, self._prefix, question, exchange)

    def _lay_out(
        self, plan: SyncPlan, question_len: int, compression: Compression | None = None
    ) -> SessionLayout:
        return build_layout(
            num_layers=self._engine.model.shape.num_layers,
            prefix_len=len(self._prefix),
            contributors=[(f"contributor-{i + 1}", size) for i, size in enumerate(self._sizes)],
            publisher=("publisher", question_len),
            plans=RolePlans(contributors=SyncPlan(()), publisher=plan),
            compression=compression,
            independent=True,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """A question and what all rows uncompressed make of it.

    Attributes:
        tokens: of the question.
        given: of the given answer.
        nll: of the given answer.
        answer: the most likely one, A tokens.
        log_probs: [A, V] before each of them.
    """

    tokens: list[int]
    given: list[int]
    nll: float
    answer: list[int]
    log_probs: torch.Tensor


class _Received:
    """`KvExchange` of a publisher who has everything already."""

    def __init__(self, route: Route, parts: Parts) -> None:
        self.route = route
        self._parts = parts

    def send(self, layer: int, rows: KvRows) -> None:
        raise AssertionError(f"a publisher sends nothing, got {rows.num_rows} rows at {layer}")

    def receive(self, layer: int) -> list[HeadRows]:
        return self._parts[layer]


def worlds_of(cases: Sequence[Case]) -> Iterator[list[Case]]:
    """Cases of the same contexts together, as they stand side by side."""
    for _, same in groupby(cases, key=lambda case: case.contexts):
        yield list(same)
