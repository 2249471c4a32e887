"""Running tasks under many plans and compressions, beside the two ends."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.costs import session_costs
from fedattn.core.plans import RolePlans, shared_plan
from fedattn.core.profile import CompressionWish
from fedattn.core.row_scores import RowScorer
from fedattn.core.spans import PrefixMode
from fedattn.model.prefill import Prefiller
from fedattn.model.prompt import PromptTokenizer
from fedattn.research.simulate import (
    CaseResult,
    CaseTokens,
    Reference,
    SimulationSettings,
    Simulator,
)
from fedattn.research.tasks.cases import Case
from fedattn.research.tasks.segmentation import Segmentation, segment
from fedattn.research.tasks.task import Task

CENTRALISED = "centralised"
ALONE = "publisher alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a query says of plans and rows; a network resolves it by the profile of its nodes."""

    plan: str
    publisher_plan: str | None = None
    wish: CompressionWish = field(default_factory=CompressionWish)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One row of the result, under a name.

    Attributes:
        name: unique.
        asked: what it comes from.
        plans: sync layers of both roles.
        compression: how rows travel.
        scorer: says which rows matter; None if nothing of `compression` asks for it.
        responder: who answers, from 1 in token order; None for the publisher.
    """

    name: str
    asked: Asked
    plans: RolePlans
    compression: Compression
    scorer: RowScorer | None = None
    responder: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseScore:
    """One case under one variant.

    Attributes:
        text: what was decoded.
        match: whether it is right.
        nll: mean negative log-likelihood of the given answer, nats a token; None if unknown.
        divergence: mean KL divergence of the next-token distribution from centralised along
            centralised's answer, nats a token; None if unknown.
        kv_bytes: bytes of all frames.
        gflops: of the busiest participant: prefill and decoding.
        memory_mib: peak of the largest participant, by the cost model.
    """

    text: str
    match: bool
    nll: float | None
    divergence: float | None
    kv_bytes: int
    gflops: float | None = None
    memory_mib: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSegmentation:
    """How prompts are cut; no segmentation leaves one context a contributor."""

    segmentation: Segmentation | None = None
    num_participants: int = 4
    prefix: PrefixMode = PrefixMode.PUBLIC
    max_new_tokens: int | None = None


def ends(num_layers: int) -> list[Variant]:
    """What every evaluation is measured beside."""
    exact = codec_by_name("fp32")
    wish = CompressionWish(codec=exact, keep_ratio=1.0)
    return [
        Variant(
            name=name,
            asked=Asked(plan=plan, wish=wish),
            plans=shared_plan(layers),
            compression=Compression(codec=exact),
        )
        for name, plan, layers in ((CENTRALISED, "all", range(num_layers)), (ALONE, "none", ()))
    ]


class InProcessRuns:
    """Runs a task on one model, all participants in this process, greedily."""

    def __init__(
        self, prefiller: Prefiller, tokenizer: PromptTokenizer, shape: PromptSegmentation
    ) -> None:
        self._prefiller, self._tokenizer, self._shape = prefiller, tokenizer, shape
        self._simulator = Simulator(prefiller, tokenizer)

    def run_case(self, task: Task, case: Case, variants: list[Variant]) -> Iterator[CaseScore]:
        """Scores of one case, in the order of the variants; the first must be centralised."""
        tokens = self._cut(task, case)
        reference: Reference | None = None
        for variant in variants:
            is_first = variant.name == CENTRALISED
            settings = SimulationSettings(
                plans=variant.plans,
                compression=variant.compression,
                scorer=variant.scorer,
                prefix=self._shape.prefix,
                max_new_tokens=self._shape.max_new_tokens or task.max_new_tokens,
                responder=variant.responder,
            )
            result = self._simulator.run_tokens(
                tokens, settings, lambda text: task.is_right(text, case), reference,
                as_reference=is_first,
            )  # fmt: skip
            reference = reference or result.reference
            yield self._score(result, divergence=0.0 if is_first else result.divergence)

    def _score(self, result: CaseResult, divergence: float | None) -> CaseScore:
        sizes = self._prefiller.model.sizes
        num_new = len(result.trace.generated)
        costs = session_costs(result.trace.layout, sizes, num_new_tokens=num_new)
        return CaseScore(
            text=result.text,
            match=result.match,
            nll=result.nll,
            divergence=divergence,
            kv_bytes=result.kv_bytes,
            gflops=max(cost.flops_prefill + cost.flops_decode for cost in costs) / 1e9,
            memory_mib=max(cost.peak_memory_bytes for cost in costs) / 2**20,
        )

    def _cut(self, task: Task, case: Case) -> CaseTokens:
        tokenizer, how = self._tokenizer, self._shape.segmentation
        if task.is_chat:
            units = [tokenizer.context(text) for text in case.contexts]
            prefix, question = tokenizer.prefix(), tokenizer.question(case.question)
        else:
            units = [tokenizer.plain(text) for text in case.contexts]
            prefix, question = [], tokenizer.plain(case.question)
        if how is not None:
            *units, question = segment(units, question, self._shape.num_participants, how)
        answer = tokenizer.plain(case.answer)
        return CaseTokens(prefix=prefix, contexts=units, question=question, answer=answer)


def summarize_scores(scores: list[CaseScore]) -> dict[str, float | int | None]:
    """Means over cases; KV bytes are a mean too."""

    def mean(name: str) -> float | None:
        values = [getattr(score, name) for score in scores]
        return None if None in values else float(np.mean(values))

    return {
        "cases": len(scores),
        "exact_match": float(np.mean([score.match for score in scores])),
        **{name: mean(name) for name in ("nll", "divergence", "kv_bytes", "gflops", "memory_mib")},
    }
