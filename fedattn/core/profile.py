"""Profiles: the sync plans found for one model, from few blocks to many.

A profile is a JSON file that `fedattn calibrate` writes and that is read wherever a plan is.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from fedattn.core.errors import InvalidPlanError
from fedattn.core.plans import MAX_LAYERS, PlanSpec, RolePlans, SyncPlan

PROFILE_VERSION = 1
MAX_PROFILE_BYTES = 1 << 20
DEFAULT_CONTEXT_TOKENS = 1200
"""Of all texts together, for a model that nobody has measured."""
_FORMAT = "fedattn-profile"
_UNREADABLE = (
    *(ValueError, TypeError, KeyError, AttributeError, InvalidPlanError),
    *(OverflowError, RecursionError),  # a number beyond all floats; lists within lists
)
"""What reading JSON of another shape than a profile ends in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePoint:
    """One pair of plans, and how it did on cases kept apart from the search.

    Attributes:
        plans: of contributors and publisher.
        divergence: KL from centralised along its own greedy answer, nats a token, mean over cases.
        exact_match: share of right answers; None if not measured.
        nll: mean negative log-likelihood of the given answers, nats a token; None likewise.
    """

    plans: RolePlans
    divergence: float
    exact_match: float | None = None
    nll: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What was found for one model.

    Attributes:
        fingerprint: of the model, hex SHA-256.
        num_layers: its blocks.
        points: by number of blocks that travel, strictly growing; at least one.
        default: index of the point that `auto` takes.
        origin: how it was found, for people: cases, seed, objective, search, times.
        context_tokens: most tokens of all contexts together at which it still answers well; None
            if not measured.
    """

    fingerprint: str
    num_layers: int
    points: tuple[ProfilePoint, ...]
    default: int
    origin: dict[str, Any]
    context_tokens: int | None = None

    def __post_init__(self) -> None:
        sizes = [point.plans.num_travelling for point in self.points]
        if not sizes or sizes != sorted(set(sizes)):
            raise InvalidPlanError(
                f"a profile's points must grow in blocks that travel, got {sizes}"
            )
        for point in self.points:
            point.plans.contributors.check(self.num_layers)
            point.plans.publisher.check(self.num_layers)
        if not 0 <= self.default < len(self.points):
            raise InvalidPlanError(
                f"a profile's default must name one of its {len(self.points)} points, "
                f"got {self.default}"
            )

    def choose(self, most_layers: int | None = None) -> ProfilePoint:
        """The default point, or the largest one within a number of blocks.

        Raises:
            InvalidPlanError: even the smallest point has more.
        """
        if most_layers is None:
            return self.points[self.default]
        fitting = [point for point in self.points if point.plans.num_travelling <= most_layers]
        if not fitting:
            least = self.points[0].plans.num_travelling
            raise InvalidPlanError(
                f"the profile's smallest plan has {least} sync layers, got auto@{most_layers}; "
                f"ask for {least} or more"
            )
        return fitting[-1]

    def check_model(self, fingerprint: str) -> None:
        """Refuse to be used with another model.

        Raises:
            InvalidPlanError: names both.
        """
        if fingerprint != self.fingerprint:
            raise InvalidPlanError(
                f"the profile was made for the model {self.fingerprint[:12]}, not for "
                f"{fingerprint[:12]}; make one with fedattn calibrate"
            )


def context_tokens_of(profile: Profile | None) -> int:
    """Most tokens of all texts together that suit a model, measured or assumed."""
    measured = None if profile is None else profile.context_tokens
    return measured or DEFAULT_CONTEXT_TOKENS


def resolve_plans(
    contributors: PlanSpec, publisher: PlanSpec, num_layers: int, profile: Profile | None
) -> RolePlans:
    """The sync layers of both roles; `auto` is what the profile says of that role.

    Args:
        contributors: plan of the contributors.
        publisher: plan of the publisher.
        num_layers: blocks of the model.
        profile: of that model; None if there is none.

    Raises:
        InvalidPlanError: a plan does not fit the model or the profile.
    """

    def resolve(spec: PlanSpec, role: str) -> SyncPlan:
        if profile is None or not spec.is_auto:
            return spec.resolve(num_layers)
        plan: SyncPlan = getattr(profile.choose(spec.num_layers).plans, role)
        return plan

    return RolePlans(
        contributors=resolve(contributors, "contributors"),
        publisher=resolve(publisher, "publisher"),
    )


def write_profile(profile: Profile) -> str:
    """The JSON text of a profile."""
    document = {
        "format": _FORMAT,
        "version": PROFILE_VERSION,
        "model": profile.fingerprint,
        "num_layers": profile.num_layers,
        "default": profile.default,
        **({} if profile.context_tokens is None else {"context_tokens": profile.context_tokens}),
        "points": [_write_point(point) for point in profile.points],
        "origin": profile.origin,
    }
    return json.dumps(document, indent=1) + "\n"


def read_profile(text: str, name: str) -> Profile:
    """Read the JSON text of a profile.

    Args:
        text: what `write_profile` wrote.
        name: of the file, for error messages.

    Raises:
        InvalidPlanError: names the file, what was expected and what to do.
    """
    try:
        document = json.loads(text)
        _check_format(document)
        return Profile(
            fingerprint=str(document["model"]),
            num_layers=int(document["num_layers"]),
            points=tuple(_read_point(point) for point in document["points"]),
            default=int(document["default"]),
            origin=dict(document.get("origin", {})),
            context_tokens=_read_tokens(document),
        )
    except _UNREADABLE as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InvalidPlanError(
            f"profile {name} cannot be read: {reason[:200]}; make one with fedattn calibrate"
        ) from error


def _read_tokens(document: dict[str, Any]) -> int | None:
    tokens = document.get("context_tokens")
    if tokens is not None and not (type(tokens) is int and tokens > 0):
        raise ValueError(f"context_tokens: expected a whole number from 1, got {tokens!r}")
    return tokens


def _check_format(document: dict[str, Any]) -> None:
    found = document["format"], document["version"]
    if found != (_FORMAT, PROFILE_VERSION):
        raise ValueError(f"expected {_FORMAT} of version {PROFILE_VERSION}, got {found}")


def _write_point(point: ProfilePoint) -> dict[str, Any]:
    numbers = {
        "divergence": point.divergence,
        "exact_match": point.exact_match,
        "nll": point.nll,
    }
    return {
        "contributors": str(point.plans.contributors),
        "publisher": str(point.plans.publisher),
        **{key: round(number, 5) for key, number in numbers.items() if number is not None},
    }


def _read_point(record: dict[str, Any]) -> ProfilePoint:
    def number(key: str) -> float | None:
        value = record.get(key)
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise ValueError(f"{key}: expected a number, got {value!r}")
        return value

    return ProfilePoint(
        plans=RolePlans(
            contributors=_read_layers(record["contributors"]),
            publisher=_read_layers(record["publisher"]),
        ),
        divergence=float(record["divergence"]),
        exact_match=number("exact_match"),
        nll=number("nll"),
    )


def _read_layers(text: str) -> SyncPlan:
    spec = PlanSpec(text)
    if not spec.is_explicit:
        raise ValueError(f"expected a list of blocks, got {text[:80]!r}")
    return spec.resolve(MAX_LAYERS)
