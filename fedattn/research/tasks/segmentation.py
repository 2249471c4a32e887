"""Cutting one prompt among participants (paper: TokAg, SemAg, TokEx, SemEx).

A prompt is k units (exemplars, or contexts) and a question. Token order is participant order; the
last participant publishes.
"""

from enum import Enum
from itertools import chain
from typing import TypeAlias

from fedattn.core.errors import InvalidRequestError

Tokens: TypeAlias = list[int]


class Segmentation(Enum):
    """Where the cuts are.

    TOK_AG: the whole prompt in N runs of equal length; the last takes the remainder.
    SEM_AG: floor(k / N) whole units each; the last takes what is left, and the question.
    TOK_EX: the units' tokens in N - 1 runs; the last participant has the question alone.
    SEM_EX: floor(k / (N - 1)) whole units each, what is left for the last but one; the question
        alone for the last.
    """

    TOK_AG = "tok-ag"
    SEM_AG = "sem-ag"
    TOK_EX = "tok-ex"
    SEM_EX = "sem-ex"


def segment(
    units: list[Tokens], question: Tokens, num_participants: int, how: Segmentation
) -> list[Tokens]:
    """One span a participant, the publisher's last. Joined they are the prompt.

    Example, units [1 2] [3 4 5], question [6 7], 2 participants:

        tok-ag   1 2 3 | 4 5 6 7        sem-ag   1 2 | 3 4 5 6 7
        tok-ex   1 2 3 4 5 | 6 7        sem-ex   1 2 3 4 5 | 6 7

    Raises:
        InvalidRequestError: too few units or tokens for so many participants.
    """
    if num_participants < 2:
        raise InvalidRequestError(
            f"participants: expected at least 2, got {num_participants}; one node needs no network"
        )
    others = num_participants - 1
    match how:
        case Segmentation.TOK_AG:
            spans = _cut([*chain(*units), *question], num_participants)
        case Segmentation.SEM_AG:
            size = _whole_units(len(units), num_participants, how)
            spans = [list(chain(*units[i * size : (i + 1) * size])) for i in range(others)]
            spans.append([*chain(*units[others * size :]), *question])
        case Segmentation.TOK_EX:
            spans = [*_cut(list(chain(*units)), others), question]
        case Segmentation.SEM_EX:
            size = _whole_units(len(units), others, how)
            bounds = [i * size for i in range(others)] + [len(units)]
            spans = [list(chain(*units[bounds[i] : bounds[i + 1]])) for i in range(others)]
            spans.append(question)
    return spans


def _cut(tokens: Tokens, parts: int) -> list[Tokens]:
    size = len(tokens) // parts
    if size == 0:
        raise InvalidRequestError(
            f"{len(tokens)} tokens cannot be cut among {parts} participants; take fewer"
        )
    return [tokens[i * size : (i + 1) * size] for i in range(parts - 1)] + [
        tokens[(parts - 1) * size :]
    ]


def _whole_units(num_units: int, parts: int, how: Segmentation) -> int:
    if num_units < parts:
        raise InvalidRequestError(
            f"{how.value}: expected at least {parts} units (exemplars or contexts), one a "
            f"participant, got {num_units}; take fewer participants or more units"
        )
    return num_units // parts
