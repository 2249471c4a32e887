"""How the publisher chooses the next token."""

from dataclasses import dataclass

from fedattn.core.errors import InvalidSamplingError

MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 200
MAX_NEW_TOKENS = 8192
MIN_TEMPERATURE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling parameters; the default is greedy.

    Attributes:
        max_new_tokens: most tokens to decode.
        temperature: 0 is greedy.
        top_p: smallest set of tokens with this probability mass, (0, 1].
        top_k: the k most likely tokens, 0 for all.
        seed: of the random draw, for temperature > 0.
        stop: decoding ends before any of these strings.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check("max_new_tokens", self.max_new_tokens, 1, MAX_NEW_TOKENS)
        _check("temperature", self.temperature, 0.0, 10.0)
        if 0.0 < self.temperature < MIN_TEMPERATURE:
            raise InvalidSamplingError(
                f"temperature must be 0 (greedy) or at least {MIN_TEMPERATURE}, "
                f"got {self.temperature}"
            )
        _check("top_p", self.top_p, 1e-6, 1.0)
        _check("top_k", self.top_k, 0, 1_000_000)
        _check("seed", self.seed, 0, 2**63 - 1)
        _check("number of stop strings", len(self.stop), 0, MAX_STOP_STRINGS)
        for text in self.stop:
            _check("length of a stop string", len(text), 1, MAX_STOP_LENGTH)

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # NaN fails too
        raise InvalidSamplingError(f"{name} must be between {low} and {high}, got {value}")
