"""How far plans are from centralised, for many plans over the same prompts."""

from collections.abc import Sequence
from enum import Enum
from typing import assert_never

import numpy as np
import torch

from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import RolePlans, shared_plan
from fedattn.model.loading import LoadedModel
from fedattn.research.calibrate.runner import in_order, make_runners
from fedattn.research.prompts import Prompt


class Objective(Enum):
    """What is to be small.

    KL: divergence of the next-token distribution from centralised's, along the answer; no label.
    NLL: negative log-likelihood of the answer.
    """

    KL = "kl"
    NLL = "nll"


def read_objective(name: str) -> Objective:
    """The objective of that name.

    Raises:
        InvalidRequestError: there is none.
    """
    try:
        return Objective(name)
    except ValueError:
        known = " or ".join(objective.value for objective in Objective)
        raise InvalidRequestError(f"unknown objective {name!r}; use {known}") from None


class PlanEvaluator:
    """Scores plans over a set of prompts; lower is better.

    Args:
        model: of any floating dtype. bfloat16 is several times faster on CPUs that multiply it.
        prompts: with the answers that are looked at.
        objective: what is scored.
        batch_size: prompts that run together.
    """

    def __init__(
        self,
        model: LoadedModel,
        prompts: Sequence[Prompt],
        objective: Objective = Objective.KL,
        batch_size: int = 16,
    ) -> None:
        self._objective = objective
        self._num_layers = model.shape.num_layers
        self._naive_tokens = sum(len(prompt.token_ids) + len(prompt.answer) for prompt in prompts)
        self.num_scored = 0
        with torch.inference_mode():
            self._order, self._runners = make_runners(model, prompts, batch_size)
            central = shared_plan(range(self._num_layers))
            self._bases = [runner.run(central, runner.start()) for runner in self._runners]
            self._targets = [
                runner.log_probs(base)
                for runner, base in zip(self._runners, self._bases, strict=True)
            ]

    def move_base(self, plans: RolePlans) -> None:
        """Keep the states of these plans; scoring plans near them is cheapest."""
        with torch.inference_mode():
            pairs = zip(self._runners, self._bases, strict=True)
            self._bases = [runner.run(plans, base) for runner, base in pairs]

    def score(self, plans: RolePlans) -> float:
        """Mean of `scores`."""
        return float(np.mean(self.scores(plans)))

    def scores(self, plans: RolePlans) -> list[float]:
        """One number a prompt: the objective, summed over its answer, nats."""
        self.num_scored += 1
        scores: list[float] = []
        with torch.inference_mode():
            for runner, base, target in zip(self._runners, self._bases, self._targets, strict=True):
                log_probs = runner.log_probs(runner.run(plans, base))
                scores += runner.sum_by_prompt(self._loss(log_probs, target, runner.answers))
        return in_order(scores, self._order)

    def _loss(
        self, log_probs: torch.Tensor, target: torch.Tensor, answers: torch.Tensor
    ) -> torch.Tensor:
        match self._objective:
            case Objective.KL:
                return (target.exp() * (target - log_probs)).sum(dim=-1)
            case Objective.NLL:
                return -log_probs.gather(1, answers[:, None])[:, 0]
            case _:
                assert_never(self._objective)

    @property
    def speedup(self) -> float:
        """Tokens through blocks that a naive search would have run / that were run."""
        naive = self.num_scored * self._naive_tokens * self._num_layers
        return naive / max(1, sum(runner.token_blocks for runner in self._runners))
