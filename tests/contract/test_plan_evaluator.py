"""Scores and answers of many prompts at once equal the one-model oracle's, prompt by prompt."""

from dataclasses import replace

import pytest
import torch

from fedattn.core.plans import RolePlans, shared_plan
from fedattn.core.spans import SessionLayout
from fedattn.model.loading import LoadedModel
from fedattn.research.calibrate.evaluator import Objective, PlanEvaluator
from fedattn.research.calibrate.meter import PlanMeter
from fedattn.research.oracle import oracle_greedy, oracle_logits
from fedattn.research.prompts import Prompt, tokenize_case
from fedattn.research.tasks.cases import Case
from tests.harness.scenarios import context_words
from tests.harness.tiny import FAMILIES, NUM_LAYERS, tiny_model, word_tokenizer, words

TOLERANCE = 1e-4
EVERY = shared_plan(range(NUM_LAYERS))
PLANS = [
    EVERY,
    shared_plan(()),
    shared_plan((1, 3)),
    RolePlans(contributors=shared_plan((0, 2)).publisher, publisher=shared_plan((1,)).publisher),
    RolePlans(contributors=shared_plan(()).publisher, publisher=shared_plan((2, 4)).publisher),
    RolePlans(contributors=shared_plan((3,)).publisher, publisher=shared_plan(()).publisher),
    RolePlans(contributors=shared_plan((1, 4)).publisher, publisher=shared_plan((0, 3)).publisher),
]
LENGTHS = [(9, 4, 7), (5,), (3, 3), (12, 1), ()]


def prompts() -> list[Prompt]:
    """Prompts of 0 to 3 contributors, with answers of 1 to 5 tokens."""
    tokenizer = word_tokenizer()
    return [
        tokenize_case(
            Case(
                contexts=context_words(*lengths),
                question=words(60 + index, 4),
                answer=words(20 + index, 1 + index),
            ),
            tokenizer,
            NUM_LAYERS,
        )
        for index, lengths in enumerate(LENGTHS)
    ]


def with_plans(layout: SessionLayout, plans: RolePlans) -> SessionLayout:
    members = [replace(member, plan=plans.contributors) for member in layout.contributors]
    publisher = replace(layout.publisher, plan=plans.publisher)
    return replace(layout, members=(*members, publisher))


def oracle_log_probs(model: LoadedModel, prompt: Prompt, plans: RolePlans) -> torch.Tensor:
    layout = with_plans(prompt.layout, plans)
    logits = oracle_logits(model, layout, prompt.token_ids, prompt.answer)
    return torch.log_softmax(logits[-len(prompt.answer) - 1 : -1], dim=-1)


def oracle_score(
    model: LoadedModel, prompt: Prompt, plans: RolePlans, objective: Objective
) -> float:
    log_probs = oracle_log_probs(model, prompt, plans)
    if objective is Objective.NLL:
        return -float(log_probs[range(len(prompt.answer)), prompt.answer].sum())
    exact = oracle_log_probs(model, prompt, EVERY)
    return float((exact.exp() * (exact - log_probs)).sum())


@pytest.mark.parametrize("base", [None, PLANS[2], PLANS[3]])
@pytest.mark.parametrize("objective", Objective)
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_the_oracles_whatever_the_base(
    family: str, objective: Objective, base: RolePlans | None
) -> None:
    model, some = tiny_model(family), prompts()
    evaluator = PlanEvaluator(model, some, objective, batch_size=2)
    if base is not None:
        evaluator.move_base(base)
    for plans in PLANS:
        expected = [oracle_score(model, prompt, plans, objective) for prompt in some]
        assert evaluator.scores(plans) == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_measurements_equal_the_oracles(family: str) -> None:
    model, some = tiny_model(family), prompts()
    meter = PlanMeter(model, some, 5, batch_size=3)
    central = [
        oracle_greedy(model, with_plans(prompt.layout, EVERY), prompt.token_ids, 5)
        for prompt in some
    ]
    for plans in PLANS:
        for prompt, answer, found in zip(some, central, meter.measure(plans), strict=True):
            layout = with_plans(prompt.layout, plans)
            assert found.answer == oracle_greedy(model, layout, prompt.token_ids, 5)
            nll = oracle_score(model, prompt, plans, Objective.NLL) / len(prompt.answer)
            assert found.nll == pytest.approx(nll, abs=TOLERANCE)
            followed = replace(prompt, answer=answer)
            divergence = oracle_score(model, followed, plans, Objective.KL) / len(answer)
            assert found.divergence == pytest.approx(divergence, abs=TOLERANCE)


def test_plans_near_the_base_run_far_fewer_tokens() -> None:
    model = tiny_model("llama")
    evaluator = PlanEvaluator(model, prompts(), batch_size=2)
    evaluator.move_base(shared_plan((1, 2, 3, 4)))
    for layer in (1, 2, 3, 4):
        evaluator.score(shared_plan({1, 2, 3, 4} - {layer}))
    few = evaluator.speedup
    for _ in range(20):
        evaluator.score(shared_plan((1, 2, 3)))
    assert evaluator.speedup > few
    assert evaluator.speedup > 2
