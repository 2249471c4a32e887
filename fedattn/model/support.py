"""Candidates for one number in [0, 1] that says how far an answer rests on the texts.

None is calibrated: 0.5 of one is not 0.5 of another. Each is cheap, and more is better.

    mean_probability, least_probability    how sure the model was of its words
    passage_attention, copying_attention   how much the answer looked at the passages
    gain_from_others                       how much less likely the answer is without others' rows
"""

import math
from collections.abc import Sequence

from fedattn.model.attribution import Attribution


def mean_probability(log_probs: Sequence[float]) -> float:
    """Mean probability of the answer's tokens; `log_probs` in nats, at least one."""
    return math.fsum(map(math.exp, log_probs)) / len(log_probs)


def least_probability(log_probs: Sequence[float]) -> float:
    """Probability of the token that the model was least sure of; one bad number is enough."""
    return math.exp(min(log_probs))


def passage_attention(attribution: Attribution) -> float:
    """Attention on all passages together, of all attention; mean over tokens, heads, layers."""
    return min(1.0, math.fsum(attribution.masses))


def copying_attention(attribution: Attribution) -> float:
    """Attention of the head that copies most, on the one row of a passage that it points at."""
    return min(1.0, attribution.peak)


def gain_from_others(log_probs: Sequence[float], alone: Sequence[float]) -> float:
    """What the others' rows add to the answer's likelihood.

    Example: tokens that are 4 times as likely with the rows, in the geometric mean, give 1 - 1/4.

    Args:
        log_probs: of each answer token as decoded, nats.
        alone: of each without the others' rows (`log_probs_alone`), nats.

    Returns:
        0 if they do not make the answer likelier, near 1 if it is hardly possible without them.

    Raises:
        ValueError: not one of each for every token.
    """
    if len(log_probs) != len(alone) or not log_probs:
        raise ValueError(
            f"expected one log-probability a token, got {len(log_probs)} and {len(alone)}"
        )
    gain = (math.fsum(log_probs) - math.fsum(alone)) / len(log_probs)
    return -math.expm1(-max(0.0, gain))
