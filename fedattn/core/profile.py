"""Profiles: what was found for one model, so that few bytes keep the answers.

`fedattn calibrate` makes a profile, and whoever makes a plan reads it. It names points from the
best quality to the fewest bytes: which share of its rows each head keeps, and how they are written.
It also holds the scores by which a node chooses those rows.
"""

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from fedattn.core.budget import FEWER_ROWS
from fedattn.core.codecs import CODEC_LADDER, Codec, codec_by_name
from fedattn.core.compression import MAX_LEAST_ROWS, Compression
from fedattn.core.errors import InvalidPlanError
from fedattn.core.plans import PlanSpec, RolePlans, SyncPlan
from fedattn.core.row_scores import RowScorer
from fedattn.core.selection import DEFAULT_SELECTOR, LEARNED

DEFAULT_CONTEXT_TOKENS = 1200
"""Of all texts together, for a model that nobody has measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilePoint:
    """One point between quality and bytes, as measured on texts that no search has seen.

    Attributes:
        keep_ratio: share of the rows of all synced heads that travel.
        codec: name of the codec.
        head_shares: share of its rows that each head keeps, a byte each, as in `Compression`;
            empty if all travel.
        fewer_bytes: bytes of bf16 at every block, divided by those that travel; of texts shorter
            than `Profile.least_rows` more travel.
        divergence: KL from every row and block uncompressed, along the answer that those give;
            nats a token, mean.
        nll_change: of the given answers against the same, nats a token, mean.
    """

    keep_ratio: float
    codec: str
    head_shares: bytes
    fewer_bytes: float
    divergence: float
    nll_change: float = 0.0

    def __post_init__(self) -> None:
        codec_by_name(self.codec)
        if not 0 < self.keep_ratio <= 1 or bool(self.head_shares) != (self.keep_ratio < 1):
            raise InvalidPlanError(
                f"a point keeps above 0 to 1 of the rows, and says of which heads if not all; got "
                f"{self.keep_ratio} and {len(self.head_shares)} shares"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What was found for one model.

    Attributes:
        fingerprint: of the model, hex SHA-256.
        num_layers: its blocks.
        num_kv_heads: its key/value heads.
        plans: sync layers of both roles at every point, and where to ask owners of rows.
        points: from the best quality to the fewest bytes; `fewer_bytes` grows strictly.
        default: index of the point that `auto` takes.
        scorer: says which rows to keep; None if every point keeps all.
        least_rows: shares of heads are of so many rows at least: short texts keep more of theirs.
        origin: how it was found, for people: cases, seed, lengths, times.
        context_tokens: most tokens of all contexts together at which the model still answers well;
            None if not measured.
    """

    fingerprint: str
    num_layers: int
    num_kv_heads: int
    plans: RolePlans
    points: tuple[ProfilePoint, ...]
    default: int
    scorer: RowScorer | None = None
    least_rows: int = 0
    origin: dict[str, Any] = field(default_factory=dict)
    context_tokens: int | None = None

    def __post_init__(self) -> None:
        self.plans.contributors.check(self.num_layers)
        self.plans.publisher.check(self.num_layers)
        self.plans.asked.check(self.num_layers)
        ratios = [point.fewer_bytes for point in self.points]
        if not ratios or any(b <= a for a, b in pairwise(ratios)):
            raise InvalidPlanError(f"a profile's points must save more and more, got {ratios}")
        if not 0 <= self.default < len(self.points):
            raise InvalidPlanError(
                f"a profile's default must name one of its {len(self.points)} points, "
                f"got {self.default}"
            )
        num_heads = self.num_layers * self.num_kv_heads
        sizes = {len(point.head_shares) for point in self.points} - {0, num_heads}
        if sizes or (self.scorer is None) != all(not one.head_shares for one in self.points):
            raise InvalidPlanError(
                f"a profile of {num_heads} heads has a share of each and scores to choose rows by, "
                f"got {sorted(sizes) or 'none'}"
            )
        if not 0 <= self.least_rows <= MAX_LEAST_ROWS:
            raise InvalidPlanError(
                f"a profile's least_rows: expected 0 to {MAX_LEAST_ROWS}, got {self.least_rows}"
            )
        heads = self.num_layers, self.num_kv_heads
        if self.scorer is not None and self.scorer.bias.shape != heads:
            raise InvalidPlanError(
                f"a profile of {heads} blocks and heads has scores of as many, got "
                f"{self.scorer.bias.shape}"
            )

    def choose(self, fewer_bytes: float | None = None) -> int:
        """Index of the default point, or of the best one that saves so much.

        Raises:
            InvalidPlanError: no point does.
        """
        if fewer_bytes is None:
            return self.default
        for index, point in enumerate(self.points):
            if point.fewer_bytes >= fewer_bytes:
                return index
        raise InvalidPlanError(
            f"the profile's smallest point sends 1/{self.points[-1].fewer_bytes:.0f} of bf16 at "
            f"every block, got auto@1/{fewer_bytes:g}; ask for that, or give a byte budget"
        )

    def head_shares(self, keep_ratio: float) -> bytes:
        """Shares of the heads at any keep ratio, between those of the points next to it."""
        known = {one.keep_ratio: one.head_shares for one in self.points if one.head_shares}
        ratios = sorted(known)
        shares = [np.frombuffer(known[ratio], dtype=np.uint8) for ratio in ratios]
        synced = np.array([layer in self.plans.publisher for layer in range(self.num_layers)])
        everything = np.repeat(synced, self.num_kv_heads) * 255.0
        table = np.stack([0 * everything, *shares, everything])
        columns = [
            np.interp(keep_ratio, [0.0, *ratios, 1.0], table[:, head])
            for head in range(table.shape[1])
        ]
        return bytes(round(share) for share in columns)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionWish:
    """What somebody wants of the rows; None leaves it to the profile of the model.

    Attributes:
        codec: how rows are written.
        keep_ratio: share of the rows that travel.
        selector: which rows do.
        settings: all else.
    """

    codec: Codec | None = None
    keep_ratio: float | None = None
    selector: str | None = None
    settings: Compression = field(default_factory=Compression)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Plans and compression that a query came to.

    Attributes:
        plans: of both roles.
        compression: of the rows.
        coarser: what a byte budget may go down to instead, in this order.
        scorer: says which rows matter; None if nobody knows.
    """

    plans: RolePlans
    compression: Compression
    coarser: tuple[Compression, ...] = ()
    scorer: RowScorer | None = None


def context_tokens_of(profile: Profile | None) -> int:
    """Most tokens of all texts together that suit a model, measured or assumed."""
    measured = None if profile is None else profile.context_tokens
    return measured or DEFAULT_CONTEXT_TOKENS


def resolve(
    contributors: PlanSpec,
    publisher: PlanSpec,
    num_layers: int,
    profile: Profile | None,
    wish: CompressionWish | None = None,
) -> Resolved:
    """What plans and compression come to; `auto` is what the profile says.

    Without a profile nothing is left out but block 0, and codes are fine: careful until the model
    is calibrated.

    Args:
        contributors: plan of the contributors.
        publisher: plan of the publisher.
        num_layers: blocks of the model.
        profile: of that model; None if there is none.
        wish: what is wanted of the rows.

    Raises:
        InvalidPlanError: a plan does not fit the model or the profile.
        InvalidRequestError: the selector needs a profile.
    """
    wish = wish or CompressionWish()
    plans = resolve_plans(contributors, publisher, num_layers, profile)
    compression, coarser = _resolve_rows(publisher, profile, wish)
    scorer = None if profile is None else profile.scorer
    return Resolved(plans=plans, compression=compression, coarser=coarser, scorer=scorer)


def resolve_plans(
    contributors: PlanSpec, publisher: PlanSpec, num_layers: int, profile: Profile | None
) -> RolePlans:
    """The sync layers of both roles, and where contributors are asked; as `resolve`.

    The publisher's plan says both where rows are received and where their owners are asked.
    """
    for spec in (contributors, publisher):
        if profile is None and spec.fewer_bytes is not None:
            raise InvalidPlanError(
                f"{spec.text}: nobody has measured what this model bears; make a profile with "
                f"fedattn calibrate, or give a keep ratio and a codec"
            )

    def resolve_one(spec: PlanSpec, role: str) -> SyncPlan:
        if profile is None or not spec.is_auto:
            return spec.resolve(num_layers)
        plan: SyncPlan = getattr(profile.plans, role)
        return plan

    asked = resolve_one(publisher, "asked")
    return RolePlans(
        contributors=resolve_one(contributors, "contributors"),
        publisher=resolve_one(publisher, "publisher"),
        asked=asked if asked.layers or not publisher.is_auto else publisher.resolve(num_layers),
    )


def _resolve_rows(
    plan: PlanSpec, profile: Profile | None, wish: CompressionWish
) -> tuple[Compression, tuple[Compression, ...]]:
    """Rows that travel, and what a budget goes down to."""
    is_free = wish.keep_ratio is None and wish.selector in {None, LEARNED}
    if profile is not None and is_free and plan.is_auto:
        chosen = profile.choose(plan.fewer_bytes)
        first, *others = (_at_point(point, wish) for point in profile.points[chosen:])
        if first.head_shares and profile.least_rows:
            return replace(first, least_rows=profile.least_rows), (first, *others)
        return first, tuple(others)
    codecs = _codecs(wish)
    kept = 1.0 if wish.keep_ratio is None else wish.keep_ratio
    fewer = [ratio for ratio in FEWER_ROWS if ratio < kept]
    steps = [*((kept, codec) for codec in codecs), *((ratio, codecs[-1]) for ratio in fewer)]
    compressions = [_at_ratio(ratio, codec, profile, wish) for ratio, codec in steps]
    return compressions[0], tuple(compressions[1:])


def _codecs(wish: CompressionWish) -> list[Codec]:
    """The codec, and coarser ones if it was left open."""
    return [wish.codec] if wish.codec else [codec_by_name(name) for name in CODEC_LADDER]


def _at_ratio(
    keep_ratio: float, codec: Codec, profile: Profile | None, wish: CompressionWish
) -> Compression:
    """A keep ratio of which the profile has no point, or the selector is another one."""
    selector, shares = wish.selector or DEFAULT_SELECTOR, b""
    if wish.selector in {None, LEARNED} and profile is not None and profile.scorer is not None:
        shares = profile.head_shares(keep_ratio) if keep_ratio < 1 else b""
        selector = LEARNED if shares else DEFAULT_SELECTOR
    return replace(
        wish.settings,
        codec=codec,
        keep_ratio=keep_ratio,
        selector=selector,
        head_shares=shares,
    )


def _at_point(point: ProfilePoint, wish: CompressionWish) -> Compression:
    return replace(
        wish.settings,
        codec=wish.codec or codec_by_name(point.codec),
        keep_ratio=point.keep_ratio,
        selector=LEARNED if point.head_shares else DEFAULT_SELECTOR,
        head_shares=point.head_shares,
    )
