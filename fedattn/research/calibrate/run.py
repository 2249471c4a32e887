"""Calibration: cases in, a profile out."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path
from random import Random
from typing import Protocol

import numpy as np
import torch

from fedattn.core.costs import session_bytes
from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import RolePlans, shared_plan
from fedattn.core.profile import Profile, ProfilePoint
from fedattn.model.loading import LoadedModel
from fedattn.model.prompt import PromptTokenizer
from fedattn.research.calibrate.evaluator import Objective, PlanEvaluator
from fedattn.research.calibrate.meter import PlanMeter
from fedattn.research.calibrate.scorelog import ScoreLog
from fedattn.research.calibrate.search import DEFAULT_STRATEGY, STRATEGIES, Found
from fedattn.research.prompts import Prompt, tokenize_case
from fedattn.research.tasks.cases import Case, is_right
from fedattn.research.tasks.retrieval import ALL_KINDS, generate_cases

_ANSWER_TOKENS = 24
_FEWEST_RIGHT = 8
_NUM_CONTEXTS = (2, 3, 4)
_KEEP_SHARE = 0.95
_MOST_NLL = 0.05


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
        budget_bytes: most KV bytes of a query, mean over the held-out cases, codec `auto`; decides
            the smallest plan and the default one instead of `fewest` and quality. None for none.
    """

    fewest: int = 4
    objective: Objective = Objective.KL
    strategy: str = DEFAULT_STRATEGY
    seed: int = 0
    num_search: int = 96
    num_held_out: int = 120
    budget_bytes: int | None = None

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
    """Generated cases of all kinds over 2, 3 and 4 contexts in turn."""
    kinds = [
        generate_cases(-(-count // 3), seed=seed + offset, num_contexts=num, kinds=ALL_KINDS)
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
        model: float32; measures.
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
        self._num_layers = model.shape.num_layers
        if not settings.fewest < self._num_layers:
            raise InvalidRequestError(
                f"sync layers: expected 1 to {self._num_layers - 1}, got {settings.fewest}"
            )
        self._model, self._search_model = model, search_model
        self._tokenizer = tokenizer
        self._split, self._settings = split, settings
        self._fewest = settings.fewest
        if settings.budget_bytes is not None:
            self._fewest = self._layers_within(settings.budget_bytes)

    def run(self, log_path: Path, report: Report) -> Profile:
        """Search, measure on the held-out cases, choose the default.

        Args:
            log_path: where scores are kept for a search that goes on later.
            report: told how far it is.
        """
        begun = time.monotonic()
        prompts = centralised_prompts(
            self._search_model, self._tokenizer, self._split.search, self._settings.objective
        )
        evaluator = PlanEvaluator(self._search_model, prompts, self._settings.objective)
        scorer = ScoreLog(evaluator, log_path, self._signature())
        found = self._search(scorer, report)
        chosen = [found[size] for size in sorted(found)]
        searched_s = time.monotonic() - begun
        reference, points = self._measure([one.plans for one in chosen], report)
        return Profile(
            fingerprint=self._model.fingerprint,
            num_layers=self._num_layers,
            points=points,
            default=0
            if self._settings.budget_bytes is not None
            else default_point(points, reference),
            origin={
                "objective": self._settings.objective.value,
                "search": self._settings.strategy,
                "seed": self._settings.seed,
                "search_cases": len(prompts),
                "held_out_cases": len(self._split.held_out),
                "centralised_exact_match": round(reference.exact_match or 0.0, 5),
                "centralised_nll": round(reference.nll or 0.0, 5),
                "search_seconds": round(searched_s),
                "scores_recalled": scorer.num_recalled,
                "scores_computed": evaluator.num_scored,
            },
        )

    def _search(self, scorer: ScoreLog, report: Report) -> dict[int, Found]:
        """The best plans by number of layers."""
        layers = tuple(range(1, self._num_layers))
        total = len(layers) - self._fewest
        everything = shared_plan(layers)
        found = {len(layers): Found(plans=everything, score=scorer.score(everything))}
        strategy = STRATEGIES[self._settings.strategy]
        for one in strategy(scorer, layers, self._fewest):
            size = one.plans.num_travelling
            if size not in found or one.score < found[size].score:
                found[size] = one
            news = f"{size} layers: {one.score:.3f} nats, {one.plans.publisher}"
            report("search", min(len(found) - 1, total), total, news)
        return found

    def _measure(
        self, chosen: list[RolePlans], report: Report
    ) -> tuple[ProfilePoint, tuple[ProfilePoint, ...]]:
        """Centralised and the points of the profile on the held-out cases."""
        cases = self._split.held_out
        prompts = [tokenize_case(case, self._tokenizer, self._num_layers) for case in cases]
        meter = PlanMeter(self._model, prompts, _ANSWER_TOKENS)
        points = []
        central = shared_plan(range(self._num_layers))
        for done, plans in enumerate([central, *chosen], start=1):
            found = meter.measure(plans)
            matches = [
                is_right(self._tokenizer.decode(one.answer), case)
                for one, case in zip(found, cases, strict=True)
            ]
            points.append(
                ProfilePoint(
                    plans=plans,
                    divergence=float(np.mean([one.divergence for one in found])),
                    exact_match=float(np.mean(matches)),
                    nll=float(np.mean([one.nll for one in found])),
                )
            )
            news = f"held out, {plans.num_travelling} layers: right {np.mean(matches):.3f}"
            report("held-out cases", done, len(chosen) + 1, news)
        return points[0], tuple(points[1:])

    def _layers_within(self, budget_bytes: int) -> int:
        """Sync layers that a byte budget pays for; every layer costs the same.

        Raises:
            InvalidRequestError: it does not pay for one.
        """
        sizes = []
        for case in self._split.held_out:
            prompt = tokenize_case(case, self._tokenizer, self._num_layers, shared_plan((1,)))
            traffic = session_bytes(prompt.layout, self._model.shape)
            sizes.append(sum(member.total_up for member in traffic))
        layer_bytes = float(np.mean(sizes))
        if budget_bytes < layer_bytes:
            raise InvalidRequestError(
                f"budget: one sync layer takes {layer_bytes:.0f} bytes a query, mean over the "
                f"cases, got {budget_bytes}; allow at least that"
            )
        return min(int(budget_bytes / layer_bytes), self._num_layers - 1)

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


def centralised_prompts(
    model: LoadedModel,
    tokenizer: PromptTokenizer,
    cases: list[Case],
    objective: Objective = Objective.KL,
) -> list[Prompt]:
    """Prompts of the cases that centralised answers right, with the answer that is scored.

    Where it is wrong there is nothing to keep; if that leaves too few, all cases are taken. The
    answer is centralised's own for `Objective.KL`, else the given one.
    """
    prompts = [tokenize_case(case, tokenizer, model.shape.num_layers) for case in cases]
    central = shared_plan(range(model.shape.num_layers))
    found = PlanMeter(model, prompts, _ANSWER_TOKENS).measure(central)
    right = [
        is_right(tokenizer.decode(one.answer), case) for one, case in zip(found, cases, strict=True)
    ]
    if objective is Objective.KL:
        prompts = [
            replace(prompt, answer=one.answer or prompt.answer)
            for prompt, one in zip(prompts, found, strict=True)
        ]
    kept = list(compress(prompts, right))
    return kept if len(kept) >= _FEWEST_RIGHT else prompts


def default_point(points: Sequence[ProfilePoint], central: ProfilePoint) -> int:
    """Index of the smallest plan that keeps 95 % of the right answers, and their likelihood.

    Exact match on some hundred cases moves by chance, so the NLL of the given answers must stay
    within 0.05 nats a token too. The largest plan, if none does.
    """
    for index, point in enumerate(points):
        keeps = (point.exact_match or 0.0) >= _KEEP_SHARE * (central.exact_match or 0.0)
        if keeps and (point.nll or 0.0) <= (central.nll or 0.0) + _MOST_NLL:
            return index
    return len(points) - 1
