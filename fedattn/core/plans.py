"""Sync plans: at which Transformer blocks a participant attends to other spans too.

A plan is written as text (`PlanSpec`) by users and resolved once against a model (`SyncPlan`).

    all            every block
    none           no block: the participant stays alone
    auto           every block but 0, whose KV gives tokens away by look-up
    uniform:4      blocks 0, 4, 8, ... (paper: sync interval H)
    7,9,10-12      blocks 7, 9, 10, 11 and 12
"""

from dataclasses import dataclass

from fedattn.core.errors import InvalidPlanError

MAX_LAYERS = 1024
MAX_PLAN_LENGTH = 8192
"""Characters of a plan; the longest one `format_layers` writes has less than 2500."""
_GRAMMAR = "use all, none, auto, uniform:INTERVAL, or a list such as 7,9,10-12"


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """Zero-based sync layers, sorted and unique."""

    layers: tuple[int, ...]

    def __post_init__(self) -> None:
        if list(self.layers) != sorted(set(self.layers)) or min(self.layers, default=0) < 0:
            raise InvalidPlanError(
                f"sync layers must be sorted, unique and not negative, "
                f"got {len(self.layers)} layers: {str(list(self.layers[:20]))[1:-1]}"
            )

    def __contains__(self, layer: int) -> bool:
        return layer in self.layers

    def __str__(self) -> str:
        return format_layers(self.layers)

    def check(self, num_layers: int) -> None:
        """Raise InvalidPlanError if a layer is outside [0, num_layers)."""
        outside = [layer for layer in self.layers if layer >= num_layers]
        if outside:
            raise InvalidPlanError(
                f"sync plan names block {outside[0]}, but the model has blocks "
                f"0 to {num_layers - 1}; choose layers in that range"
            )


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """A plan as a user writes it, not yet bound to a model. Its syntax is valid."""

    text: str

    def __post_init__(self) -> None:
        _parse(self.text)

    def resolve(self, num_layers: int) -> SyncPlan:
        """The sync layers for a model of `num_layers` blocks.

        Raises:
            InvalidPlanError: a layer is out of range.
        """
        kind, numbers = _parse(self.text)
        match kind:
            case "none":
                layers: tuple[int, ...] = ()
            case "all":
                layers = tuple(range(num_layers))
            case "auto":
                layers = tuple(range(1, num_layers))
            case "uniform":
                layers = tuple(range(0, num_layers, numbers[0]))
            case _:
                layers = numbers
        plan = SyncPlan(layers)
        plan.check(num_layers)
        return plan


def _parse(text: str) -> tuple[str, tuple[int, ...]]:
    if len(text) > MAX_PLAN_LENGTH:
        raise InvalidPlanError(
            f"sync plan has {len(text)} characters, at most {MAX_PLAN_LENGTH} are read; {_GRAMMAR}"
        )
    name, colon, argument = text.strip().partition(":")
    if name in {"all", "none", "auto"} and not colon:
        return name, ()
    if name == "uniform":
        return name, (_parse_number(argument, text, minimum=1),)
    layers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        start = _parse_number(first, text)
        stop = _parse_number(last, text) if dash else start
        if stop < start:
            raise InvalidPlanError(f"sync plan {text[:80]!r}: range {start}-{stop} runs backwards")
        layers.update(range(start, stop + 1))
    return "layers", tuple(sorted(layers))


def _parse_number(digits: str, text: str, minimum: int = 0) -> int:
    stripped = digits.strip()
    if not (stripped.isascii() and stripped.isdigit() and len(stripped) <= 4):
        raise InvalidPlanError(f"unknown sync plan {text[:80]!r}; {_GRAMMAR}")
    number = int(stripped)
    if not minimum <= number < MAX_LAYERS:
        raise InvalidPlanError(
            f"sync plan {text[:80]!r}: {number} is outside {minimum} to {MAX_LAYERS - 1}; "
            f"{_GRAMMAR}"
        )
    return number


def format_layers(layers: tuple[int, ...]) -> str:
    """The shortest text that `PlanSpec` reads back: (7, 9, 10, 11) becomes "7,9-11"."""
    if not layers:
        return "none"
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
