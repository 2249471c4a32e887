"""Answers and likelihoods of many prompts at a time, under any plans."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from fedattn.core.plans import RolePlans, shared_plan
from fedattn.model.loading import LoadedModel
from fedattn.research.calibrate.runner import BatchRunner, State, in_order, make_runners
from fedattn.research.prompts import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One prompt under one pair of plans.

    Attributes:
        answer: greedy tokens, ended before an end token.
        nll: mean negative log-likelihood of the prompt's given answer, nats a token.
        divergence: mean KL divergence from centralised along centralised's greedy answer, nats a
            token.
    """

    answer: list[int]
    nll: float
    divergence: float


@dataclass(frozen=True, slots=True, eq=False)
class _Followed:
    """Answers of a batch, teacher-forced.

    Attributes:
        tokens: [B, A] int64, padded with -1.
        log_probs: [B, A, V] float32 before each of them.
    """

    tokens: torch.Tensor
    log_probs: torch.Tensor

    def mean(self, values: torch.Tensor) -> list[float]:
        """Means of [B, A] values over the tokens of each answer, padding left out."""
        real = self.tokens >= 0
        means: list[float] = ((values * real).sum(dim=1) / real.sum(dim=1)).tolist()
        return means

    def nlls(self) -> list[float]:
        chosen = self.log_probs.gather(2, self.tokens.clamp(min=0)[:, :, None])[:, :, 0]
        return self.mean(-chosen)

    def divergences(self, other: torch.Tensor) -> list[float]:
        return self.mean((self.log_probs.exp() * (self.log_probs - other)).sum(dim=2))


class PlanMeter:
    """Measures plans on prompts; one prefill a plan serves the answers and both likelihoods.

    Args:
        model: of any floating dtype.
        prompts: with their given answers.
        num_tokens: most tokens to decode.
        batch_size: prompts that run together.
    """

    def __init__(
        self,
        model: LoadedModel,
        prompts: Sequence[Prompt],
        num_tokens: int,
        batch_size: int = 16,
    ) -> None:
        self._end_token_ids = model.end_token_ids
        self._device = model.device
        self._num_tokens = num_tokens
        unanswered = [replace(prompt, answer=[0]) for prompt in prompts]
        with torch.inference_mode():
            self._order, self._runners = make_runners(model, unanswered, batch_size)
            given = iter([prompts[at].answer for at in self._order])
            self._given = [
                self._pad([next(given) for _ in range(runner.size)]) for runner in self._runners
            ]
            central = shared_plan(range(model.shape.num_layers))
            self._central = [self._follow_centralised(runner, central) for runner in self._runners]

    def measure(self, plans: RolePlans) -> list[Measurement]:
        """One measurement a prompt, in the order of the prompts."""
        results: list[Measurement] = []
        parts = zip(self._runners, self._given, self._central, strict=True)
        with torch.inference_mode():
            for runner, given, central in parts:
                state = runner.run(plans, runner.start())
                answers = self._decode(runner, state)
                nlls = _Followed(given, runner.follow(state, given)).nlls()
                divergences = central.divergences(runner.follow(state, central.tokens))
                results += [
                    Measurement(answer=answer, nll=nll, divergence=divergence)
                    for answer, nll, divergence in zip(answers, nlls, divergences, strict=True)
                ]
        return in_order(results, self._order)

    def _follow_centralised(self, runner: BatchRunner, central: RolePlans) -> _Followed:
        state = runner.run(central, runner.start())
        tokens = self._pad([answer or [0] for answer in self._decode(runner, state)])
        return _Followed(tokens, runner.follow(state, tokens))

    def _decode(self, runner: BatchRunner, state: State) -> list[list[int]]:
        return [self._cut(tokens) for tokens in runner.decode(state, self._num_tokens).tolist()]

    def _cut(self, tokens: list[int]) -> list[int]:
        ends = [at for at, token in enumerate(tokens) if token in self._end_token_ids]
        return tokens[: ends[0]] if ends else tokens

    def _pad(self, answers: list[list[int]]) -> torch.Tensor:
        width = max(len(answer) for answer in answers)
        rows = [answer + [-1] * (width - len(answer)) for answer in answers]
        return torch.tensor(rows, dtype=torch.int64, device=self._device)
