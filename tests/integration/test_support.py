"""How far an answer rests on the texts: candidates on numbers known by hand."""

import math

import pytest

from fedattn.model.attribution import Attribution
from fedattn.model.support import (
    copying_attention,
    gain_from_others,
    least_probability,
    mean_probability,
    passage_attention,
)

LOG_PROBS = (math.log(0.5), math.log(0.25), 0.0)


def attribution(*masses: float, peak: float = 0.0) -> Attribution:
    return Attribution(shares=tuple(0.0 for _ in masses), masses=masses, peak=peak)


def test_probabilities_are_mean_and_least() -> None:
    assert mean_probability(LOG_PROBS) == pytest.approx(1.75 / 3)
    assert least_probability(LOG_PROBS) == pytest.approx(0.25)


def test_attention_is_added_up_and_never_above_one() -> None:
    assert passage_attention(attribution(0.25, 0.5)) == 0.75
    assert passage_attention(attribution()) == 0.0
    assert passage_attention(attribution(0.5, 0.5000001)) == 1.0
    assert copying_attention(attribution(0.5, peak=0.75)) == 0.75
    assert copying_attention(attribution(0.5, peak=1.0000001)) == 1.0


def test_gain_tells_how_much_likelier_the_rows_make_the_answer() -> None:
    alone = [value - math.log(4) for value in LOG_PROBS]
    assert gain_from_others(LOG_PROBS, alone) == pytest.approx(0.75)
    assert gain_from_others(LOG_PROBS, LOG_PROBS) == 0.0
    assert gain_from_others(alone, LOG_PROBS) == 0.0
    assert gain_from_others(LOG_PROBS, [-1e6] * 3) == 1.0


@pytest.mark.parametrize("alone", [(), (0.0,)])
def test_gain_needs_both_of_every_token(alone: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected one log-probability a token, got 3 and"):
        gain_from_others(LOG_PROBS, alone)
    with pytest.raises(ValueError, match="got 0 and"):
        gain_from_others((), ())
