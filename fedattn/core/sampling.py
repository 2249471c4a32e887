"""How the publisher chooses the next token."""

from dataclasses import dataclass
from typing import Self

from fedattn.core.errors import InvalidSamplingError
from fedattn.core.limits import MAX_SEED, check_limits, check_range, check_text, described, limited

MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 200
MAX_NEW_TOKENS = 8192
MIN_TEMPERATURE = 1e-3
MAX_NGRAM_SIZE = 64
NO_REPETITION_PENALTY = 1.0
DEFAULT_REPETITION_PENALTY = NO_REPETITION_PENALTY
DEFAULT_NO_REPEAT_NGRAM_SIZE = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling parameters; the default is greedy. Each field states its meaning and its limits.

    What was said before is the answer so far, and nothing of the prompt: the publisher does not
    have the others' tokens, and an answer ought to repeat the words of the texts.
    """

    max_new_tokens: int = limited(64, "Most tokens to decode.", 1, MAX_NEW_TOKENS)
    temperature: float = limited(0.0, f"0 is greedy, else {MIN_TEMPERATURE} or more.", 0, 10)
    top_p: float = limited(1.0, "Smallest set of tokens with this probability mass.", 1e-6, 1)
    top_k: int = limited(0, "The k most likely tokens, 0 for all.", 0, 1_000_000)
    repetition_penalty: float = limited(
        DEFAULT_REPETITION_PENALTY,
        "Divides the logits of tokens that the answer has already (multiplies negative ones); "
        "1 is off.",
        1,
        10,
    )
    no_repeat_ngram_size: int = limited(
        DEFAULT_NO_REPEAT_NGRAM_SIZE,
        "No run of so many tokens comes twice in the answer; 0 is off.",
        0,
        MAX_NGRAM_SIZE,
    )
    seed: int = limited(0, "Of the random draw, for a temperature above 0.", 0, MAX_SEED)
    stop: tuple[str, ...] = described((), "Decoding ends before any of these.")

    def __post_init__(self) -> None:
        check_limits(self, InvalidSamplingError)
        if 0.0 < self.temperature < MIN_TEMPERATURE:
            raise InvalidSamplingError(
                f"temperature must be 0 (greedy) or at least {MIN_TEMPERATURE}, "
                f"got {self.temperature}"
            )
        count, length = "number of stop strings", "length of a stop string"
        check_range(count, len(self.stop), 0, MAX_STOP_STRINGS, InvalidSamplingError)
        for text in self.stop:
            check_range(length, len(text), 1, MAX_STOP_LENGTH, InvalidSamplingError)
            check_text("a stop string", text, InvalidSamplingError)

    @classmethod
    def most_likely(cls, max_new_tokens: int) -> Self:
        """Always the most likely token, whatever the defaults are: what a model itself says."""
        return cls(
            max_new_tokens=max_new_tokens,
            temperature=0.0,
            repetition_penalty=NO_REPETITION_PENALTY,
            no_repeat_ngram_size=0,
        )

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0
