"""How far plans are from centralised, for many plans over the same prompts.

A naive search runs every prompt through every block for every plan. Here a plan is compared with a
base plan whose hidden states are kept, and only what can differ from it is computed:

- public prefix and first contributor receive from nobody: computed once for all plans;
- later contributors: above the first block at which their plan differs, up to the last block whose
  rows the publisher reads;
- the publisher: above the first block at which its plan differs or the rows it reads do.

All prompts of a batch run together. Results equal the masked one-model oracle's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeAlias, TypeVar, assert_never

import numpy as np
import torch

from fedattn.calibrate.batches import (
    PromptBatch,
    Tokens,
    make_batches,
    make_tokens,
    visibility,
)
from fedattn.core.plans import SyncPlan
from fedattn.core.spans import RolePlans
from fedattn.model.loading import LoadedModel
from fedattn.model.prompt import Prompt

T = TypeVar("T")
Rows: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Keys after RoPE and values, [B, Hkv, T, D] each."""

_NEVER = 1 << 30


@dataclass(slots=True)
class Passage:
    """Hidden states of one group of tokens on their way through the blocks.

    Attributes:
        inputs: what enters block l, [B, T, d], for as many l as were reached.
        rows: what block l makes of it.
    """

    inputs: list[torch.Tensor]
    rows: list[Rows] = field(default_factory=list)

    def up_to(self, layer: int) -> "Passage":
        """The same until it enters a block."""
        return Passage(self.inputs[: layer + 1], self.rows[:layer])


@dataclass(slots=True)
class State:
    """One batch under one pair of plans."""

    plans: RolePlans
    later: Passage
    publisher: Passage


class _Visible:
    """A `KvView` of one block: rows of others, then the own ones, which it remembers."""

    def __init__(self, others: Sequence[Rows], mask: torch.Tensor) -> None:
        self._others, self._mask = others, mask
        self.own: list[Rows] = []

    def visible(
        self,
        layer: int,  # noqa: ARG002
        query: torch.Tensor,  # noqa: ARG002
        key: torch.Tensor,
        value: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self.own.append((key, value))
        keys = torch.cat([*(keys for keys, _ in self._others), key], dim=2)
        values = torch.cat([*(values for _, values in self._others), value], dim=2)
        return keys, values, self._mask


class _BatchRunner:
    """Runs one batch under any plans, each time only what differs from a state at hand."""

    def __init__(self, model: LoadedModel, batch: PromptBatch) -> None:
        self._model, self._batch = model, batch
        self._backbone: Any = model.backbone
        self._num_layers = model.shape.num_layers
        self.token_blocks = 0
        fixed = self._enter(batch.fixed)
        mask = visibility(batch.fixed, [batch.fixed], is_synced=False)
        for layer in range(self._num_layers):
            self._run_block(layer, batch.fixed, fixed, [], mask)
        self._fixed_rows = fixed.rows
        self._seen = seen = [batch.fixed, batch.later]
        self._later_masks = {
            synced: visibility(batch.later, seen, is_synced=synced) for synced in (False, True)
        }
        alone, all_groups = [batch.fixed, batch.publisher], [*seen, batch.publisher]
        self._publisher_masks = {
            False: visibility(batch.publisher, alone, is_synced=False),
            True: visibility(batch.publisher, all_groups, is_synced=True),
        }

    def start(self) -> State:
        """Nobody has reached any block."""
        nothing = SyncPlan(())
        return State(
            plans=RolePlans(contributors=nothing, publisher=nothing),
            later=self._enter(self._batch.later),
            publisher=self._enter(self._batch.publisher),
        )

    def run(self, plans: RolePlans, base: State) -> State:
        """The batch under `plans`; shares with `base` what cannot differ."""
        changed = _first_difference(plans.contributors, base.plans.contributors)
        later = base.later.up_to(changed)
        last_read = max(plans.publisher.layers, default=-1)
        for layer in range(len(later.rows), last_read + 1):
            mask = self._later_masks[layer in plans.contributors]
            self._run_block(layer, self._batch.later, later, [self._fixed_rows[layer]], mask)
        rows_changed = min((at for at in plans.publisher.layers if at > changed), default=_NEVER)
        own_changed = _first_difference(plans.publisher, base.plans.publisher)
        publisher = base.publisher.up_to(min(own_changed, rows_changed))
        state = State(plans=plans, later=later, publisher=publisher)
        for layer in range(len(publisher.rows), self._num_layers):
            mask = self._publisher_masks[layer in plans.publisher]
            others = self._others(state, layer)
            self._run_block(layer, self._batch.publisher, publisher, others, mask)
        return state

    def log_probs(self, state: State) -> torch.Tensor:
        """[N, V] float32 log-probabilities at every answer token of every prompt."""
        final = state.publisher.inputs[-1]
        hidden = final[self._batch.answer_rows, self._batch.answer_columns]
        return torch.log_softmax(self._model.head(self._backbone.norm(hidden)).float(), dim=-1)

    def decode(self, state: State, num_tokens: int) -> torch.Tensor:
        """Greedy tokens [B, num_tokens] int64 after the publisher's span, whatever they are.

        The batch's prompts must have an answer of one token, which is not looked at.
        """
        groups = [self._batch.publisher]
        rows = [[own] for own in state.publisher.rows]
        chosen = [self.log_probs(state).argmax(dim=-1)]
        position = self._batch.publisher.positions.gather(1, self._batch.answer_columns[:, None])
        owner = self._batch.publisher.owners[:, :1]
        while len(chosen) < num_tokens:
            position = position + 1
            tokens = make_tokens(self._model, chosen[-1][:, None], position, owner)
            passage = self._enter(tokens)
            groups.append(tokens)
            masks = {
                synced: visibility(tokens, [*seen, *groups], is_synced=synced)
                for synced, seen in ((False, [self._batch.fixed]), (True, self._seen))
            }
            for layer in range(self._num_layers):
                synced = layer in state.plans.publisher
                others = self._others(state, layer) + rows[layer]
                self._run_block(layer, tokens, passage, others, masks[synced])
                rows[layer].append(passage.rows[layer])
            hidden = self._backbone.norm(passage.inputs[-1][:, 0])
            chosen.append(self._model.head(hidden).argmax(dim=-1))
        return torch.stack(chosen, dim=1)

    def _others(self, state: State, layer: int) -> list[Rows]:
        """Rows of others that the publisher sees at a layer."""
        synced = layer in state.plans.publisher
        return [self._fixed_rows[layer], *([state.later.rows[layer]] if synced else [])]

    def sum_by_prompt(self, values: torch.Tensor) -> list[float]:
        """Sums over the answer tokens of each prompt, of [N] values."""
        zeros = torch.zeros(self._batch.size, device=values.device)
        sums: list[float] = zeros.index_add(0, self._batch.answer_rows, values).tolist()
        return sums

    @property
    def answers(self) -> torch.Tensor:
        return self._batch.answers

    def _enter(self, tokens: Tokens) -> Passage:
        return Passage(inputs=[self._backbone.embed_tokens(tokens.ids)])

    def _run_block(
        self,
        layer: int,
        tokens: Tokens,
        passage: Passage,
        others: Sequence[Rows],
        mask: torch.Tensor,
    ) -> None:
        view = _Visible(others, mask)
        hidden = self._backbone.layers[layer](
            passage.inputs[layer], position_embeddings=tokens.rotation, kv_view=view
        )
        passage.inputs.append(hidden)
        passage.rows.append(view.own[0])
        self.token_blocks += tokens.ids.numel()


def _make_runners(
    model: LoadedModel, prompts: Sequence[Prompt], batch_size: int
) -> tuple[list[int], list[_BatchRunner]]:
    """Prompts of like length run together; also the order in which they are."""
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at].token_ids))
    batches = make_batches(model, [prompts[at] for at in order], batch_size)
    return order, [_BatchRunner(model, batch) for batch in batches]


def _in_order(values: list[T], order: list[int]) -> list[T]:
    """Undo the sorting of `_make_runners`."""
    return [value for _, value in sorted(zip(order, values, strict=True), key=lambda one: one[0])]


def _first_difference(plan: SyncPlan, other: SyncPlan) -> int:
    return min(set(plan.layers) ^ set(other.layers), default=_NEVER)


class Objective(Enum):
    """What is to be small.

    KL: divergence of the next-token distribution from centralised's, along the answer; no label.
    NLL: negative log-likelihood of the answer.
    """

    KL = "kl"
    NLL = "nll"


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
        self._num_scored = 0
        with torch.inference_mode():
            self._order, self._runners = _make_runners(model, prompts, batch_size)
            every = SyncPlan(tuple(range(self._num_layers)))
            central = RolePlans(contributors=every, publisher=every)
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
        self._num_scored += 1
        scores: list[float] = []
        with torch.inference_mode():
            for runner, base, target in zip(self._runners, self._bases, self._targets, strict=True):
                log_probs = runner.log_probs(runner.run(plans, base))
                scores += runner.sum_by_prompt(self._loss(log_probs, target, runner.answers))
        return _in_order(scores, self._order)

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
        naive = self._num_scored * self._naive_tokens * self._num_layers
        return naive / max(1, sum(runner.token_blocks for runner in self._runners))


class BatchDecoder:
    """Greedy answers of many prompts under any plans, many prompts at a time.

    Args:
        model: of any floating dtype.
        prompts: their own answers are not looked at.
        batch_size: prompts that run together.
    """

    def __init__(self, model: LoadedModel, prompts: Sequence[Prompt], batch_size: int = 16) -> None:
        self._end_token_ids = model.end_token_ids
        unanswered = [replace(prompt, answer=[0]) for prompt in prompts]
        with torch.inference_mode():
            self._order, self._runners = _make_runners(model, unanswered, batch_size)

    def decode(self, plans: RolePlans, num_tokens: int) -> list[list[int]]:
        """At most `num_tokens` tokens a prompt; ends before an end token."""
        answers: list[list[int]] = []
        with torch.inference_mode():
            for runner in self._runners:
                state = runner.run(plans, runner.start())
                answers += map(self._cut, runner.decode(state, num_tokens).tolist())
        return _in_order(answers, self._order)

    def _cut(self, tokens: list[int]) -> list[int]:
        ends = [at for at, token in enumerate(tokens) if token in self._end_token_ids]
        return tokens[: ends[0]] if ends else tokens
