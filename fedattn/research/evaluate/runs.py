"""Running tasks under many plans and compressions, beside the two ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.costs import session_costs
from fedattn.core.plans import RolePlans, shared_plan
from fedattn.core.profile import CompressionWish
from fedattn.core.row_scores import RowScorer
from fedattn.core.spans import PrefixMode
from fedattn.model.prefill import Prefiller
from fedattn.model.prompt import PromptTokenizer
from fedattn.research.evaluate.scores import CaseScore, ScoresByName
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

    def run_world(
        self, task: Task, cases: Sequence[Case], variants: list[Variant]
    ) -> list[ScoresByName]:
        """Scores of cases side by side; the first variant must be centralised.

        A variant runs all of them before the next one does, so that the contributors' rows are
        computed once for questions about the same contexts.
        """
        spans = [self._cut(task, case) for case in cases]
        references: list[Reference | None] = [None] * len(cases)
        scores: list[ScoresByName] = [{} for _ in cases]
        for variant in variants:
            for at, case in enumerate(cases):
                result = self._run(task, case, spans[at], variant, references[at])
                references[at] = references[at] or result.reference
                scores[at][variant.name] = self._score(result, variant)
        return scores

    def _run(
        self,
        task: Task,
        case: Case,
        tokens: CaseTokens,
        variant: Variant,
        reference: Reference | None,
    ) -> CaseResult:
        settings = SimulationSettings(
            plans=variant.plans,
            compression=variant.compression,
            scorer=variant.scorer,
            prefix=self._shape.prefix,
            max_new_tokens=self._shape.max_new_tokens or task.max_new_tokens,
            responder=variant.responder,
        )
        return self._simulator.run_tokens(
            tokens,
            settings,
            lambda text: task.is_right(text, case),
            reference,
            as_reference=variant.name == CENTRALISED,
        )

    def _score(self, result: CaseResult, variant: Variant) -> CaseScore:
        sizes = self._prefiller.model.sizes
        num_new = len(result.trace.generated)
        costs = session_costs(result.trace.layout, sizes, num_new_tokens=num_new)
        return CaseScore(
            text=result.text,
            match=result.match,
            nll=result.nll,
            divergence=0.0 if variant.name == CENTRALISED else result.divergence,
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
