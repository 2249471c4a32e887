"""Runs a batch of prompts under any plans, each time only what differs from a state at hand.

A naive search runs every prompt through every block for every plan. Here hidden states of a base
plan are kept, and only what can differ from it is computed:

- public prefix and first contributor receive from nobody: computed once for all plans;
- later contributors: above the first block at which their plan differs, up to the last block whose
  rows the publisher reads;
- the publisher: above the first block at which its plan differs or the rows it reads do.

Results equal the masked one-model oracle's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import torch

from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.model.attention import sdpa
from fedattn.model.loading import LoadedModel
from fedattn.research.calibrate.batches import (
    PAD_OWNER,
    PromptBatch,
    Tokens,
    make_batches,
    make_tokens,
    visibility,
)
from fedattn.research.prompts import Prompt

T = TypeVar("T")
Rows: TypeAlias = tuple[torch.Tensor, torch.Tensor]
"""Keys after RoPE and values, [B, Hkv, T, D] each."""

_NEVER = 1 << 30


@dataclass(slots=True)
class LayerStates:
    """Hidden states of one group of tokens on their way through the blocks.

    Attributes:
        inputs: what enters block l, [B, T, d], for as many l as were reached.
        rows: what block l makes of it.
    """

    inputs: list[torch.Tensor]
    rows: list[Rows] = field(default_factory=list)

    def up_to(self, layer: int) -> "LayerStates":
        """The same until it enters a block."""
        return LayerStates(self.inputs[: layer + 1], self.rows[:layer])


@dataclass(slots=True)
class State:
    """One batch under one pair of plans."""

    plans: RolePlans
    later_contributors: LayerStates
    publisher: LayerStates


class _Visible:
    """A `KvView` of one block: rows of others, then the own ones, which it remembers."""

    def __init__(self, others: Sequence[Rows], mask: torch.Tensor) -> None:
        self._others, self._mask = others, mask
        self.own: list[Rows] = []

    def attend(
        self,
        layer: int,  # noqa: ARG002
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        self.own.append((key, value))
        keys = torch.cat([*(keys for keys, _ in self._others), key], dim=2)
        values = torch.cat([*(values for _, values in self._others), value], dim=2)
        return sdpa(query, keys, values, self._mask, scaling)


class _Continuation:
    """What the publisher has said so far, after its span."""

    def __init__(self, batch: PromptBatch, state: State) -> None:
        self.groups = [batch.publisher]
        self.rows = [[own] for own in state.publisher.rows]
        self.last_position = batch.publisher.positions.gather(1, batch.answer_columns[:, None])
        self.owner = batch.publisher.owners[:, :1]


class BatchRunner:
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
        self._seen = seen = [batch.fixed, batch.later_contributors]
        self._later_masks = {
            synced: visibility(batch.later_contributors, seen, is_synced=synced)
            for synced in (False, True)
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
            later_contributors=self._enter(self._batch.later_contributors),
            publisher=self._enter(self._batch.publisher),
        )

    def run(self, plans: RolePlans, base: State) -> State:
        """The batch under `plans`; shares with `base` what cannot differ."""
        changed = _first_difference(plans.contributors, base.plans.contributors)
        later = base.later_contributors.up_to(changed)
        last_read = max(plans.publisher.layers, default=-1)
        for layer in range(len(later.rows), last_read + 1):
            mask = self._later_masks[layer in plans.contributors]
            self._run_block(
                layer, self._batch.later_contributors, later, [self._fixed_rows[layer]], mask
            )
        rows_changed = min((at for at in plans.publisher.layers if at > changed), default=_NEVER)
        own_changed = _first_difference(plans.publisher, base.plans.publisher)
        publisher = base.publisher.up_to(min(own_changed, rows_changed))
        state = State(plans=plans, later_contributors=later, publisher=publisher)
        for layer in range(len(publisher.rows), self._num_layers):
            mask = self._publisher_masks[layer in plans.publisher]
            others = self._others(state, layer)
            self._run_block(layer, self._batch.publisher, publisher, others, mask)
        return state

    def log_probs(self, state: State) -> torch.Tensor:
        """[N, V] float32 log-probabilities at every answer token of every prompt."""
        final = state.publisher.inputs[-1]
        return self._log_probs(final[self._batch.answer_rows, self._batch.answer_columns])

    def _log_probs(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model.head(self._backbone.norm(hidden))
        return torch.log_softmax(logits.float(), dim=-1)

    def decode(self, state: State, num_tokens: int) -> torch.Tensor:
        """Greedy tokens [B, num_tokens] int64 after the publisher's span, whatever they are.

        The batch's prompts must have an answer of one token, which is not looked at.
        """
        tail = _Continuation(self._batch, state)
        chosen = [self.log_probs(state).argmax(dim=-1)]
        while len(chosen) < num_tokens:
            hidden = self._extend(state, tail, chosen[-1][:, None])
            chosen.append(self._log_probs(hidden[:, 0]).argmax(dim=-1))
        return torch.stack(chosen, dim=1)

    def follow(self, state: State, answers: torch.Tensor) -> torch.Tensor:
        """[B, A, V] float32 log-probabilities before each token of given answers [B, A] int64.

        Answers may be padded with -1; what is said of padding means nothing. The batch's own
        answers must have one token, as for `decode`.
        """
        first = self.log_probs(state)[:, None]
        if answers.shape[1] == 1:
            return first
        hidden = self._extend(state, _Continuation(self._batch, state), answers[:, :-1])
        return torch.cat([first, self._log_probs(hidden)], dim=1)

    def _extend(self, state: State, tail: "_Continuation", ids: torch.Tensor) -> torch.Tensor:
        """Final hidden states [B, T, d] of T more tokens [B, T] of the publisher."""
        steps = torch.arange(1, ids.shape[1] + 1, device=ids.device)
        positions = tail.last_position + steps
        tail.last_position = positions[:, -1:]
        owners = tail.owner.expand_as(ids).masked_fill(ids < 0, PAD_OWNER)
        tokens = make_tokens(self._model, ids.clamp(min=0), positions, owners)
        tail.groups.append(tokens)
        masks = {
            synced: visibility(tokens, [*seen, *tail.groups], is_synced=synced)
            for synced, seen in ((False, [self._batch.fixed]), (True, self._seen))
        }
        passage = self._enter(tokens)
        for layer in range(self._num_layers):
            others = self._others(state, layer) + tail.rows[layer]
            mask = masks[layer in state.plans.publisher]
            self._run_block(layer, tokens, passage, others, mask)
            tail.rows[layer].append(passage.rows[layer])
        return passage.inputs[-1]

    def _others(self, state: State, layer: int) -> list[Rows]:
        """Rows of others that the publisher sees at a layer."""
        synced = layer in state.plans.publisher
        return [
            self._fixed_rows[layer],
            *([state.later_contributors.rows[layer]] if synced else []),
        ]

    def sum_by_prompt(self, values: torch.Tensor) -> list[float]:
        """Sums over the answer tokens of each prompt, of [N] values."""
        zeros = torch.zeros(self._batch.size, device=values.device)
        sums: list[float] = zeros.index_add(0, self._batch.answer_rows, values).tolist()
        return sums

    @property
    def size(self) -> int:
        """Prompts of the batch."""
        return self._batch.size

    @property
    def answers(self) -> torch.Tensor:
        return self._batch.answers

    def _enter(self, tokens: Tokens) -> LayerStates:
        return LayerStates(inputs=[self._backbone.embed_tokens(tokens.ids)])

    def _run_block(
        self,
        layer: int,
        tokens: Tokens,
        passage: LayerStates,
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


def make_runners(
    model: LoadedModel, prompts: Sequence[Prompt], batch_size: int
) -> tuple[list[int], list[BatchRunner]]:
    """Prompts of like length run together; also the order in which they are."""
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at].token_ids))
    batches = make_batches(model, [prompts[at] for at in order], batch_size)
    return order, [BatchRunner(model, batch) for batch in batches]


def in_order(values: list[T], order: list[int]) -> list[T]:
    """Undo the sorting of `make_runners`."""
    return [value for _, value in sorted(zip(order, values, strict=True), key=lambda one: one[0])]


def _first_difference(plan: SyncPlan, other: SyncPlan) -> int:
    return min(set(plan.layers) ^ set(other.layers), default=_NEVER)
