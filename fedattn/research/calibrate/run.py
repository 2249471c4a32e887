"""Calibration: texts in, a profile out."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Protocol

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import PlanSpec, shared_plan
from fedattn.core.profile import Profile
from fedattn.core.row_scores import RowScorer, row_features
from fedattn.core.selection import DEFAULT_SELECTOR, LEARNED
from fedattn.model.engine import Engine
from fedattn.model.replay import ContextRows
from fedattn.research.calibrate.measuring import Effect, WorldMeter, worlds_of
from fedattn.research.calibrate.points import (
    LADDER,
    LEAST_ROWS,
    MAX_DIVERGENCE,
    MeasuredPoint,
    default_index,
    frontier,
    summarize,
)
from fedattn.research.calibrate.ridge import ScorerFit
from fedattn.research.calibrate.shares import HeadShares
from fedattn.research.calibrate.texts import fact_texts, other_texts
from fedattn.research.tasks.worlds import WorldShape, generate_worlds

_NUM_CONTEXTS = 3
_ROOM_FOR_QUESTION = 100
_HELD_OUT_SEED = 1_000_003


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthPlan:
    """How much of one length is looked at.

    Attributes:
        length: tokens of a text.
        facts: texts of generated facts that scores are fitted on.
        others: generated texts of other kinds.
        worlds: held-out worlds of three texts each.
        questions: asked of each world.
    """

    length: int
    facts: int
    others: int
    worlds: int
    questions: int


THOROUGH = (
    LengthPlan(length=50, facts=12, others=5, worlds=4, questions=6),
    LengthPlan(length=200, facts=9, others=5, worlds=3, questions=8),
    LengthPlan(length=600, facts=4, others=5, worlds=2, questions=10),
    LengthPlan(length=1500, facts=2, others=1, worlds=1, questions=12),
)
QUICK = (
    LengthPlan(length=50, facts=6, others=5, worlds=2, questions=6),
    LengthPlan(length=200, facts=6, others=5, worlds=1, questions=8),
    LengthPlan(length=600, facts=2, others=0, worlds=1, questions=8),
)


class Report(Protocol):
    """Is told how far a calibration is, step by step: stage, units of its work.

    It may wait, to let others go first, or raise, to end it.
    """

    def __call__(self, stage: str, done: int, total: int) -> None: ...


class Calibration:
    """One calibration of one model.

    Args:
        engine: of the model.
        plans: how much of which length; those too long for the model's window are left out.
        seed: of the generated texts.
        own: of the user's own texts, token ids of contexts of given lengths.
    """

    def __init__(
        self,
        engine: Engine,
        plans: Sequence[LengthPlan] = THOROUGH,
        *,
        seed: int = 0,
        own: Callable[[list[int]], Iterator[list[int]]] = lambda _: iter(()),
    ) -> None:
        self._engine, self._seed, self._own = engine, seed, own
        self._plans = [plan for plan in plans if self._fits(plan.length)]
        if not self._plans:
            raise InvalidRequestError(
                f"the model's window of {engine.model.max_positions} tokens holds no three texts "
                f"of {plans[0].length} tokens; it needs no calibration"
            )
        shape = engine.model.shape
        self._sync_plan = PlanSpec("auto").resolve(shape.num_layers)
        self._role_plans = shared_plan(self._sync_plan.layers)

    def run(self, report: Report) -> Profile:
        """Fit scores and shares, measure points on held-out worlds, choose the default.

        Args:
            report: told how far it is.
        """
        begun = time.monotonic()
        scorer, shares, num_tokens = self._fit(report)
        fitted_s = time.monotonic() - begun
        points = frontier(self._measure(scorer, shares, report))
        has_shares = any(one.point.head_shares for one in points)
        shape = self._engine.model.shape
        return Profile(
            fingerprint=self._engine.model.fingerprint,
            num_layers=shape.num_layers,
            num_kv_heads=shape.num_kv_heads,
            plans=self._role_plans,
            points=tuple(one.point for one in points),
            default=default_index(points),
            scorer=scorer if has_shares else None,
            least_rows=LEAST_ROWS,
            origin={
                "seed": self._seed,
                "fitted_tokens": num_tokens,
                "fitted_seconds": round(fitted_s),
                "measured_seconds": round(time.monotonic() - begun - fitted_s),
                "max_divergence": MAX_DIVERGENCE,
                "plans": [asdict(plan) for plan in self._plans],
                "lengths": [_by_length(one) for one in points],
            },
        )

    def _fit(self, report: Report) -> tuple[RowScorer, HeadShares, int]:
        """The linear scores, the shares of heads, and how many tokens they come from."""
        model, tokenizer = self._engine.model, self._engine.tokenizer
        fit = ScorerFit(model.shape)
        shares = HeadShares(model.shape, first=min(self._sync_plan.layers))
        contexts = list(self._contexts())
        for done, token_ids in enumerate(contexts, start=1):
            context = ContextRows(model, tokenizer.prefix(), token_ids)
            scores = context.replay_scores(tokenizer)
            shares.add(scores)
            for layer in self._sync_plan.layers:
                rows = context.rows[layer]
                keys = model.rotaries[layer].undo(rows.keys, rows.positions)
                fit.add(layer, row_features(keys, rows.values), scores[layer])
            report("texts", done, len(contexts))
        return fit.solve(), shares, sum(map(len, contexts))

    def _contexts(self) -> Iterator[list[int]]:
        """Token ids of all texts that scores are fitted on."""
        tokenizer = self._engine.tokenizer
        for plan in self._plans:
            how = self._count, self._seed
            for text in chain(
                fact_texts(plan.length, plan.facts, *how),
                other_texts(plan.length, plan.others, *how),
            ):
                yield tokenizer.context(text)
        yield from self._own([plan.length for plan in self._plans for _ in range(plan.others)])

    def _measure(
        self, scorer: RowScorer, shares: HeadShares, report: Report
    ) -> list[MeasuredPoint]:
        """The whole ladder on the held-out worlds."""
        compressions = [_compression(ratio, codec, shares) for ratio, codec in LADDER]
        found: list[dict[int, Effect]] = [{} for _ in LADDER]
        total = len(LADDER) * sum(plan.worlds for plan in self._plans)
        done = 0
        for plan in self._plans:
            effects: list[list[Effect]] = [[] for _ in LADDER]
            for meter in self._worlds(plan):
                for step, compression in enumerate(compressions):
                    effects[step].append(meter.measure(self._role_plans, compression, scorer))
                    done += 1
                    report("held-out texts", done, total)
            for step, same in enumerate(effects):
                found[step][plan.length] = Effect.mean(same)
        return [
            summarize(ratio, codec, compression.head_shares, by_length)
            for (ratio, codec), compression, by_length in zip(
                LADDER, compressions, found, strict=True
            )
        ]

    def _worlds(self, plan: LengthPlan) -> Iterator[WorldMeter]:
        shape = WorldShape(
            length=plan.length, num_contexts=_NUM_CONTEXTS, num_questions=plan.questions
        )
        count = plan.worlds * plan.questions
        cases = generate_worlds(count, shape, self._count, seed=self._seed + _HELD_OUT_SEED)
        for same in worlds_of(cases):
            yield WorldMeter(self._engine, same)

    def _count(self, text: str) -> int:
        return len(self._engine.tokenizer.plain(text))

    def _fits(self, length: int) -> bool:
        """Whether three texts and a question, or one text said twice, fit the window."""
        prefix = len(self._engine.tokenizer.prefix())
        needed = prefix + _NUM_CONTEXTS * length + _ROOM_FOR_QUESTION
        return needed <= self._engine.model.max_positions


def _compression(keep_ratio: float, codec: str, shares: HeadShares) -> Compression:
    is_chosen = keep_ratio < 1
    return Compression(
        codec=codec_by_name(codec),
        keep_ratio=keep_ratio,
        selector=LEARNED if is_chosen else DEFAULT_SELECTOR,
        head_shares=shares.at(keep_ratio) if is_chosen else b"",
        least_rows=LEAST_ROWS if is_chosen else 0,
    )


def _by_length(one: MeasuredPoint) -> dict[str, Any]:
    """For people: what a point does at each length."""
    return {
        str(length): {
            "fewer_bytes": round(1 / effect.bytes_share, 2),
            "divergence": round(effect.divergence, 4),
            "nll_change": round(effect.nll_change, 4),
        }
        for length, effect in one.effects.items()
    }
