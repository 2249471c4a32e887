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

QUESTION, GIVEN, LIKELY = range(3)
_BRANCHES = 3

HeadPast = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Keys and values [n, D] that all branches see, and biases [n], of one head at one layer."""
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
        self._seen = [list(heads) for heads in past]
        none = torch.empty(0, dtype=torch.int64, device=model.device)
        self._branches, self._positions = none, none
        self._hidden = torch.empty(0, 0)

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
        is_visible = is_of_branch & (self._positions[None] <= positions[:, None])
        self._hidden = torch.where(is_visible, 0.0, -torch.inf)  # added to scores
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
        outputs = []
        for head, queries in enumerate(query.chunk(key.shape[1], dim=1)):
            keys, values, biases = self._seen[layer][head]
            keys = torch.cat([keys, key[0, head]])
            values = torch.cat([values, value[0, head]])
            self._seen[layer][head] = keys, values, biases
            past = biases.expand(len(self._hidden), -1)
            mask = torch.cat([past, self._hidden.to(biases)], dim=1)[None, None]
            outputs.append(sdpa(queries, keys[None, None], values[None, None], mask, scaling))
        return torch.cat(outputs, dim=1)
