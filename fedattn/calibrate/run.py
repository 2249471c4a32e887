"""Calibration: cases in, a profile out."""

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Protocol

import torch

from fedattn.calibrate.batches import Prompt
from fedattn.calibrate.evaluator import Objective, PlanEvaluator
from fedattn.calibrate.scorelog import ScoreLog
from fedattn.calibrate.search import STRATEGIES, Found, relieve_contributors
from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidRequestError
from fedattn.core.profile import Profile, ProfilePoint
from fedattn.core.spans import RolePlans, shared_plan
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import Prefiller
from fedattn.model.prompt import PromptTokenizer
from fedattn.model.simulate import CaseResult, SimulationSettings, Simulator
from fedattn.tasks.cases import Case
from fedattn.tasks.retrieval import generate_cases

_ANSWER_TOKENS = 12
_NUM_CONTEXTS = (2, 3, 4)
_KEEP_SHARE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSettings:
    """What to search for.

    Attributes:
        fewest: sync layers of the smallest plan.
        objective: what is to be small.
        strategy: name of a search strategy.
        seed: of the generated cases, or of the draw of the held-out ones from a file.
        num_search: generated cases that the search sees.
        num_held_out: generated cases kept apart.
    """

    fewest: int = 4
    objective: Objective = Objective.KL
    strategy: str = "elimination"
    seed: int = 0
    num_search: int = 30
    num_held_out: int = 60

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InvalidRequestError(
                f"unknown search {self.strategy!r}; use one of {', '.join(STRATEGIES)}"
            )
        for name in ("fewest", "num_search", "num_held_out"):
            if getattr(self, name) < 1:
                raise InvalidRequestError(f"{name}: expected at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseSplit:
    """Cases the search sees, and cases kept apart to measure with."""

    search: list[Case]
    held_out: list[Case]


def generated_split(settings: CalibrationSettings) -> CaseSplit:
    """Generated cases over 2, 3 and 4 contexts; no seed is shared."""
    return CaseSplit(
        search=mixed_cases(settings.num_search, 3 * settings.seed),
        held_out=mixed_cases(settings.num_held_out, 1_000_003 + 3 * settings.seed),
    )


def mixed_cases(count: int, seed: int) -> list[Case]:
    """Generated cases over 2, 3 and 4 contexts in turn."""
    kinds = [
        generate_cases(-(-count // 3), seed=seed + offset, num_contexts=num)
        for offset, num in enumerate(_NUM_CONTEXTS)
    ]
    return [case for same in zip(*kinds, strict=True) for case in same][:count]


def split_cases(cases: list[Case], seed: int) -> CaseSplit:
    """A third of given cases, drawn by seed, is held out.

    Raises:
        InvalidRequestError: fewer than three cases.
    """
    if len(cases) < 3:
        raise InvalidRequestError(
            f"calibration needs at least 3 cases, got {len(cases)}; 20 or more find good plans"
        )
    shuffled = Random(seed).sample(cases, len(cases))  # noqa: S311  (no secret)
    num_held_out = len(cases) // 3
    return CaseSplit(search=shuffled[num_held_out:], held_out=shuffled[:num_held_out])


class Report(Protocol):
    """Is told how far a calibration is: stage, units of its work, what people may like to hear."""

    def __call__(self, stage: str, done: int, total: int, news: str = "") -> None: ...


class Calibration:
    """One calibration of one model.

    Args:
        model: float32.
        search_model: the same in the dtype the search computes in; may be `model`.
        tokenizer: cuts the prompts.
        split: the cases.
        settings: what to search for.
    """

    def __init__(
        self,
        model: LoadedModel,
        search_model: LoadedModel,
        tokenizer: PromptTokenizer,
        split: CaseSplit,
        settings: CalibrationSettings,
    ) -> None:
        if settings.fewest >= model.shape.num_layers:
            raise InvalidRequestError(
                f"sync layers: expected 1 to {model.shape.num_layers - 1}, got {settings.fewest}"
            )
        self._model, self._search_model = model, search_model
        self._simulator = Simulator(Prefiller(model), tokenizer)
        self._tokenizer = tokenizer
        self._central = shared_plan(range(model.shape.num_layers))
        self._split, self._settings = split, settings

    def run(self, log_path: Path, report: Report) -> Profile:
        """Search, measure on the held-out cases, choose the default.

        Args:
            log_path: where scores are kept for a search that goes on later.
            report: told how far it is.
        """
        begun = time.monotonic()
        central = list(
            self._run_cases(self._split.search, self._central, report, "centralised answers")
        )
        evaluator = self._evaluator(central)
        scorer = ScoreLog(evaluator, log_path, self._signature())
        found = self._search(scorer, report)
        chosen = [relieve_contributors(scorer, found[size]) for size in _report_sizes(found)]
        searched_s = time.monotonic() - begun
        points, reference = self._measure(chosen, report)
        return Profile(
            fingerprint=self._model.fingerprint,
            num_layers=self._model.shape.num_layers,
            points=points,
            default=_default_point(points, reference.exact_match or 0.0),
            origin={
                "objective": self._settings.objective.value,
                "search": self._settings.strategy,
                "seed": self._settings.seed,
                "search_cases": len(self._split.search),
                "held_out_cases": len(self._split.held_out),
                "centralised_exact_match": reference.exact_match,
                "centralised_nll": round(reference.nll or 0.0, 5),
                "search_seconds": round(searched_s),
                "fewer_tokens_than_naive": round(evaluator.speedup, 2),
            },
        )

    def _search(self, scorer: ScoreLog, report: Report) -> dict[int, Found]:
        """The best plans by number of layers."""
        layers = tuple(range(1, self._model.shape.num_layers))
        total = len(layers) - self._settings.fewest
        everything = shared_plan(layers)
        found = {len(layers): Found(plans=everything, score=scorer.score(everything))}
        strategy = STRATEGIES[self._settings.strategy]
        for one in strategy(scorer, layers, self._settings.fewest):
            size = one.plans.num_travelling
            if size not in found or one.score < found[size].score:
                found[size] = one
            news = f"{size} layers: {one.score:.4f} nats, {one.plans.publisher}"
            report("search", min(len(found) - 1, total), total, news)
        return found

    def _measure(
        self, chosen: list[Found], report: Report
    ) -> tuple[tuple[ProfilePoint, ...], ProfilePoint]:
        """Points of the profile, and centralised, on the held-out cases."""
        cases = self._split.held_out
        central = list(self._run_cases(cases, self._central, report, "held-out cases, centralised"))
        evaluator = self._evaluator(central)
        reference = _point(shared_plan(()), 0.0, central)
        points = []
        for found in sorted(chosen, key=lambda one: one.plans.num_travelling):
            stage = f"held-out cases, {found.plans.num_travelling} layers"
            results = list(self._run_cases(cases, found.plans, report, stage))
            points.append(_point(found.plans, evaluator.score(found.plans), results))
        return tuple(points), reference

    def _run_cases(
        self, cases: list[Case], plans: RolePlans, report: Report, stage: str
    ) -> Iterator[CaseResult]:
        settings = SimulationSettings(
            plans=plans,
            compression=Compression(codec=codec_by_name("fp32")),
            max_new_tokens=_ANSWER_TOKENS,
        )
        for done, result in enumerate(self._simulator.run(cases, settings), start=1):
            report(stage, done, len(cases))
            yield result

    def _evaluator(self, central: list[CaseResult]) -> PlanEvaluator:
        prompts = [
            Prompt(
                token_ids=result.trace.token_ids,
                layout=result.trace.layout,
                answer=self._answer(result),
            )
            for result in central
        ]
        return PlanEvaluator(self._search_model, prompts, self._settings.objective)

    def _answer(self, result: CaseResult) -> list[int]:
        """Tokens whose prediction is scored; the given answer if centralised says nothing."""
        given = result.trace.answer
        return (
            given if self._settings.objective is Objective.NLL else result.trace.generated or given
        )

    def _signature(self) -> str:
        """What scores depend on."""
        parts = [
            self._model.fingerprint,
            str(next(self._search_model.backbone.parameters()).dtype),
            torch.__version__,
            self._settings.objective.value,
            self._tokenizer.system_prompt,
            *(json.dumps(asdict(case), sort_keys=True) for case in self._split.search),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _report_sizes(found: dict[int, Found]) -> list[int]:
    """Every size up to 16, then every fourth, and the largest."""
    sizes = sorted(found)
    return [size for size in sizes if size <= 16 or size % 4 == 0 or size == sizes[-1]]


def _point(plans: RolePlans, divergence: float, results: list[CaseResult]) -> ProfilePoint:
    return ProfilePoint(
        plans=plans,
        divergence=divergence,
        exact_match=sum(result.match for result in results) / len(results),
        nll=sum(result.nll for result in results) / len(results),
    )


def _default_point(points: tuple[ProfilePoint, ...], central_exact_match: float) -> int:
    """The smallest point from which on every one keeps 95 % of centralised's exact match."""
    for index in reversed(range(len(points))):
        if (points[index].exact_match or 0.0) < _KEEP_SHARE * central_exact_match:
            return min(index + 1, len(points) - 1)
    return 0
