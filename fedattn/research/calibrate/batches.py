"""Prompts of unequal length, padded and cut into the three groups that plans treat differently."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from fedattn.core.visibility import PREFIX_OWNER, token_owners
from fedattn.model.loading import LoadedModel
from fedattn.research.prompts import Prompt

PAD_OWNER = -2
_Part: TypeAlias = tuple[list[int], list[int], list[int]]
"""Token ids, positions and owners of some tokens of one prompt."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """One group of tokens of B prompts, padded to T.

    Attributes:
        ids: [B, T] int64.
        positions: [B, T] int64, global; of padding larger than any other.
        owners: [B, T] int64: place in token order, PREFIX_OWNER, or PAD_OWNER.
        rotation: cosines and sines of the positions, as the model's blocks take them.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    owners: torch.Tensor
    rotation: tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PromptBatch:
    """B prompts, each followed by A answer tokens.

    Attributes:
        fixed: public prefix and first contributor, who receive from nobody.
        later_contributors: all other contributors.
        publisher: the publisher's span and all answer tokens but the last.
        answers: [N] int64, the answer tokens of all prompts, one after the other.
        answer_rows, answer_columns: [N] each; where in `publisher` they are predicted.
    """

    fixed: Tokens
    later_contributors: Tokens
    publisher: Tokens
    answers: torch.Tensor
    answer_rows: torch.Tensor
    answer_columns: torch.Tensor

    @property
    def size(self) -> int:
        return self.fixed.ids.shape[0]


def make_batches(
    model: LoadedModel, prompts: Sequence[Prompt], batch_size: int
) -> list[PromptBatch]:
    """Batches of prompts, in the order given."""
    starts = range(0, len(prompts), batch_size)
    return [_make_batch(model, prompts[start : start + batch_size]) for start in starts]


def make_tokens(
    model: LoadedModel, ids: torch.Tensor, positions: torch.Tensor, owners: torch.Tensor
) -> Tokens:
    """Tokens of a model; all arguments are [B, T] int64."""
    weights = next(model.backbone.parameters())
    rotation = model.backbone.rotary_emb(weights, position_ids=positions)  # type: ignore[operator]
    return Tokens(ids=ids, positions=positions, owners=owners, rotation=rotation)


def visibility(queries: Tokens, keys: Sequence[Tokens], *, is_synced: bool) -> torch.Tensor:
    """[B, 1, T, S] bool: as `core.visibility`, and nobody sees padding but padding itself."""
    positions = torch.cat([group.positions for group in keys], dim=1)[:, None, :]
    owners = torch.cat([group.owners for group in keys], dim=1)[:, None, :]
    own, own_positions = queries.owners[:, :, None], queries.positions[:, :, None]
    allowed = (owners == own) | (owners == PREFIX_OWNER)
    if is_synced:
        allowed |= owners != PAD_OWNER
    return (allowed & (positions <= own_positions))[:, None]


def _make_batch(model: LoadedModel, prompts: Sequence[Prompt]) -> PromptBatch:
    groups = [[_take(prompt, group) for prompt in prompts] for group in range(3)]
    fixed, later, publisher = (_pad(model, group) for group in groups)
    rows: list[int] = []
    columns: list[int] = []
    answers: list[int] = []
    for row, prompt in enumerate(prompts):
        first = len(prompt.layout.publisher.span) - 1
        rows += [row] * len(prompt.answer)
        columns += range(first, first + len(prompt.answer))
        answers += prompt.answer
    return PromptBatch(
        fixed=fixed,
        later_contributors=later,
        publisher=publisher,
        answers=torch.tensor(answers, device=model.device),
        answer_rows=torch.tensor(rows, device=model.device),
        answer_columns=torch.tensor(columns, device=model.device),
    )


def _take(prompt: Prompt, group: int) -> _Part:
    """Tokens of one prompt in group 0 (fixed), 1 (later) or 2 (publisher)."""
    tokens = [*prompt.token_ids, *prompt.answer[:-1]]
    owners = token_owners(prompt.layout, len(prompt.answer) - 1).tolist()
    publisher = len(prompt.layout.members) - 1
    group_of = {PREFIX_OWNER: 0, 0: 0, publisher: 2}
    chosen = [at for at, owner in enumerate(owners) if group_of.get(owner, 1) == group]
    return [tokens[at] for at in chosen], chosen, [owners[at] for at in chosen]


def _pad(model: LoadedModel, parts: list[_Part]) -> Tokens:
    width = max(1, *(len(ids) for ids, _, _ in parts))
    fillers = (0, model.max_positions - 1, PAD_OWNER)
    ids, positions, owners = (
        torch.tensor([row + [filler] * (width - len(row)) for row in rows], device=model.device)
        for filler, rows in zip(fillers, zip(*parts, strict=True), strict=True)
    )
    return make_tokens(model, ids, positions, owners)
