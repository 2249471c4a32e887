"""Sync plans: at which Transformer blocks a participant attends to other spans too.

A plan is written as text (`PlanSpec`) by users and resolved once against a model (`SyncPlan`).

    all            every block
    none           no block: the participant stays alone
    auto           as a profile of the model says; without a profile every block but 0
    auto@1/20      as a profile says, sending at most a twentieth of bf16 at every block
    uniform:4      schedule with sync interval 4 (paper: H), which is ceil(blocks / 4) blocks
    uniform@8      schedule with 8 blocks; see `core.schedules` for all names
    7,9,10-12      blocks 7, 9, 10, 11 and 12
"""

from collections.abc import Iterable
from dataclasses import dataclass

from fedattn.core.errors import InvalidPlanError
from fedattn.core.schedules import SCHEDULES, default_count

MAX_LAYERS = 1024
MAX_PLAN_LENGTH = 8192
"""Characters of a plan; the longest one `format_layers` writes has less than 2500."""
PLAN_TEXT = (
    "all, none, auto or auto@1/RATIO (what was found best for the model), a schedule with "
    f":INTERVAL or @BLOCKS ({', '.join(SCHEDULES)}), or zero-based blocks such as 7,9,10-12"
)
_GRAMMAR = (
    f"use all, none, auto, auto@1/RATIO, one of {', '.join(SCHEDULES)} with :INTERVAL or @BLOCKS, "
    "or a list such as 7,9,10-12"
)


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


NOWHERE = SyncPlan(())


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePlans:
    """The sync plan of each role.

    Attributes:
        contributors: where contributors attend to each other's rows.
        publisher: where the publisher attends to rows that it was sent.
        asked: where it asks contributors whose rows stay with them; they attend to nobody. Nowhere
            in a profile that has not measured it.
    """

    contributors: SyncPlan
    publisher: SyncPlan
    asked: SyncPlan = NOWHERE

    @property
    def num_travelling(self) -> int:
        """Blocks at which anybody's rows travel.

        What contributors would receive above the publisher's last block reaches nobody.
        """
        last = max(self.publisher.layers, default=-1)
        below = {layer for layer in self.contributors.layers if layer < last}
        return len(below | set(self.publisher.layers))


def shared_plan(layers: Iterable[int]) -> RolePlans:
    """The same sync layers for both roles, in any order."""
    plan = SyncPlan(tuple(sorted(layers)))
    return RolePlans(contributors=plan, publisher=plan, asked=plan)


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """A plan as a user writes it, not yet bound to a model. Its syntax is valid."""

    text: str

    def __post_init__(self) -> None:
        _parse(self.text)

    @property
    def is_auto(self) -> bool:
        """Whether a profile decides."""
        return _parse(self.text).name == "auto"

    @property
    def is_explicit(self) -> bool:
        """Whether it names blocks (or `none`), whatever the model."""
        return _parse(self.text).name in {"layers", "none"}

    @property
    def fewer_bytes(self) -> float | None:
        """The 20 of `auto@1/20`, if so."""
        return _parse(self.text).fewer_bytes

    def resolve(self, num_layers: int) -> SyncPlan:
        """The sync layers for a model of `num_layers` blocks, of which no profile is at hand.

        Raises:
            InvalidPlanError: a layer is out of range, or the schedule has no such number of blocks.
        """
        parsed = _parse(self.text)
        match parsed.name:
            case "none":
                layers: tuple[int, ...] = ()
            case "all":
                layers = tuple(range(num_layers))
            case "layers":
                layers = parsed.layers
            case "uniform" if parsed.interval is not None:
                layers = tuple(range(0, num_layers, parsed.interval))
            case "auto":  # what answers best, but for block 0
                layers = tuple(range(min(1, num_layers - 1), num_layers))
            case name:
                layers = SCHEDULES[name](num_layers, parsed.num_blocks(num_layers))
        plan = SyncPlan(layers)
        plan.check(num_layers)
        return plan


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parsed:
    name: str
    layers: tuple[int, ...] = ()
    interval: int | None = None
    count: int | None = None
    fewer_bytes: float | None = None

    def num_blocks(self, num_layers: int) -> int:
        """How many blocks a schedule takes."""
        if self.interval is not None:
            return -(-num_layers // self.interval)
        return default_count(num_layers) if self.count is None else min(self.count, num_layers)


def _parse(text: str) -> _Parsed:
    if len(text) > MAX_PLAN_LENGTH:
        raise InvalidPlanError(
            f"sync plan has {len(text)} characters, at most {MAX_PLAN_LENGTH} are read; {_GRAMMAR}"
        )
    stripped = text.strip()
    if stripped in {"all", "none"}:
        return _Parsed(name=stripped)
    name, at, count = stripped.partition("@")
    if name == "auto":
        return _Parsed(name=name, fewer_bytes=_parse_ratio(count, text) if at else None)
    if at and name in SCHEDULES:
        return _Parsed(name=name, count=_parse_number(count, text, minimum=1))
    name, colon, interval = stripped.partition(":")
    if colon and name in SCHEDULES:
        return _Parsed(name=name, interval=_parse_number(interval, text, minimum=1))
    return _Parsed(name="layers", layers=_parse_list(text))


def _parse_list(text: str) -> tuple[int, ...]:
    layers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        start = _parse_number(first, text)
        stop = _parse_number(last, text) if dash else start
        if stop < start:
            raise InvalidPlanError(f"sync plan {text[:80]!r}: range {start}-{stop} runs backwards")
        layers.update(range(start, stop + 1))
    return tuple(sorted(layers))


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


def _parse_ratio(written: str, text: str) -> float:
    one, slash, ratio = written.partition("/")
    if one.strip() != "1" or not slash:
        raise InvalidPlanError(f"unknown sync plan {text[:80]!r}; {_GRAMMAR}")
    return float(_parse_number(ratio, text, minimum=1))


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
