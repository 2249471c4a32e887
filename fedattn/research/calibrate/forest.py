"""Many questions and answers in one forward pass, all behind the same rows.

Nothing that is asked of a world sees another question, so one pass takes them all. A question has
two branches, the given answer and the most likely one:

    rows of others <- question 0 <- given answer 0
                                 <- most likely answer 0
                   <- question 1 <- ...

    token       q0 q0 | given given | likely | q1
    branch       0  0 |     1     1 |      2 |  3        question = branch - branch % 3
    position     7  8 |     9    10 |      9 |  7
"""

from dataclasses import dataclass

import torch

from fedattn.model.attention import run_model, sdpa
from fedattn.model.loading import LoadedModel
from fedattn.model.positions import visible

QUESTION, GIVEN, LIKELY = range(3)
_BRANCHES = 3

HeadPast = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""Keys and values [n, D] that all branches see, biases [n] and positions [n], of one head at one
layer.
"""
Past = list[list[HeadPast]]
"""The same of every layer and head."""


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """Tokens to run together.

    Attributes:
        ids, branches, positions: [T] int64 each.
    """

    ids: torch.Tensor
    branches: torch.Tensor
    positions: torch.Tensor

    @classmethod
    def of(cls, tokens: list[tuple[int, list[int], int]]) -> "Leaves":
        """From runs of tokens: branch, token ids, position of the first."""
        ids = [token for _, run, _ in tokens for token in run]
        branches = [branch for branch, run, _ in tokens for _ in run]
        positions = [first + at for _, run, first in tokens for at in range(len(run))]
        return cls(*(torch.tensor(column) for column in (ids, branches, positions)))


def branch_of(question: int, part: int) -> int:
    """The branch of a part of a question."""
    return _BRANCHES * question + part


class Forest:
    """A `KvView` of such branches; more tokens may follow those it has run.

    Args:
        model: runs them.
        past: what all branches see; it is not changed.
    """

    def __init__(self, model: LoadedModel, past: Past) -> None:
        self._model = model
        self.windows = model.windows
        self._past = past
        self._own = [[(keys[:0], values[:0]) for keys, values, *_ in heads] for heads in past]
        none = torch.empty(0, dtype=torch.int64, device=model.device)
        self._branches, self._positions, self._queries = none, none, none
        self._is_of_branch = torch.empty(0, 0, dtype=torch.bool)

    @torch.inference_mode()
    def run(self, leaves: Leaves) -> torch.Tensor:
        """Run more tokens.

        Returns:
            [T, d] hidden states after the final norm.
        """
        device = self._model.device
        branches, positions = leaves.branches.to(device), leaves.positions.to(device)
        self._branches = torch.cat([self._branches, branches])
        self._positions = torch.cat([self._positions, positions])
        own, known = branches[:, None], self._branches[None]
        is_of_branch = (known == own) | (known == own - own % _BRANCHES)
        self._is_of_branch, self._queries = is_of_branch, positions
        return run_model(self._model.backbone, leaves.ids.to(device), positions, self)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
    ) -> torch.Tensor:
        """As `KvView.attend`; one key/value head after the other."""
        outputs, window = [], self.windows[layer]
        is_seen = self._is_of_branch & visible(self._queries, self._positions, window)
        for head, queries in enumerate(query.chunk(key.shape[1], dim=1)):
            own = torch.stack([key[0, head], value[0, head]])
            own_keys, own_values = (
                torch.cat(both) for both in zip(self._own[layer][head], own, strict=True)
            )
            self._own[layer][head] = own_keys, own_values
            keys, values, biases, positions = self._past[layer][head]
            is_past_seen = visible(self._queries, positions, window)
            mask = torch.cat(
                [
                    torch.where(is_past_seen, biases, -torch.inf),
                    torch.where(is_seen, biases.new_zeros(()), -torch.inf),
                ],
                dim=1,
            )[None, None]
            keys = torch.cat([keys, own_keys])[None, None]
            values = torch.cat([values, own_values])[None, None]
            outputs.append(sdpa(queries, keys, values, mask, scaling))
        return torch.cat(outputs, dim=1)
