"""The variants that `fedattn eval` compares: every combination of what may be repeated."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from fedattn.cli.options import read_wish
from fedattn.cli.plans import choose
from fedattn.core.codecs import DEFAULT_CODEC
from fedattn.core.errors import InvalidRequestError
from fedattn.model.loading import read_sizes
from fedattn.model.prepare import PreparedModel
from fedattn.research.evaluate.runs import Asked, Variant, ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Values to combine, at least one of each; None is the default of that option."""

    plans: Sequence[str]
    publisher_plans: Sequence[str | None]
    codecs: Sequence[str]
    keep_ratios: Sequence[float | None]
    input_keep_ratios: Sequence[float]
    responders: Sequence[int | None]
    selector: str
    seed: int


@dataclass(frozen=True, slots=True)
class _Point:
    """One of each, in the order of the grid."""

    plan: str
    publisher_plan: str | None
    codec: str
    keep_ratio: float | None
    input_keep_ratio: float
    responder: int | None

    def name(self, *, with_codec: bool) -> str:
        parts = [self.plan]
        parts += [] if self.publisher_plan is None else [f"publisher {self.publisher_plan}"]
        parts += [self.codec] if with_codec or self.codec != DEFAULT_CODEC else []
        parts += [] if self.keep_ratio is None else [f"keep {self.keep_ratio:g}"]
        parts += [f"input {self.input_keep_ratio:g}"] if self.input_keep_ratio < 1 else []
        parts += [] if self.responder is None else [f"responder {self.responder}"]
        return " ".join(parts)


def make_variants(grid: Grid, prepared: PreparedModel) -> list[Variant]:
    """The two ends, then every combination of the grid; names are unique.

    Raises:
        InvalidRequestError, InvalidPlanError: a plan, codec or ratio does not fit.
    """
    num_layers = read_sizes(prepared).kv.num_layers
    variants = {variant.name: variant for variant in ends(num_layers)}
    points = product(
        grid.plans,
        grid.publisher_plans,
        grid.codecs,
        grid.keep_ratios,
        grid.input_keep_ratios,
        grid.responders,
    )
    for point in (_Point(*values) for values in points):
        name = point.name(with_codec=len(grid.codecs) > 1)
        wish = read_wish(
            point.codec,
            point.keep_ratio,
            point.input_keep_ratio,
            selector=grid.selector,
            seed=grid.seed,
        )
        asked = Asked(plan=point.plan, publisher_plan=point.publisher_plan, wish=wish)
        chosen = choose(
            asked.plan, asked.publisher_plan, num_layers, prepared.fingerprint, asked.wish
        )
        variants[name] = Variant(
            name=name,
            asked=asked,
            plans=chosen.plans,
            compression=chosen.compression,
            scorer=chosen.scorer,
            responder=point.responder,
        )
    return list(variants.values())


def check_baseline(name: str, variants: Sequence[Variant]) -> None:
    """Refuse a baseline that is not run.

    Raises:
        InvalidRequestError: names those that are.
    """
    names = [variant.name for variant in variants]
    if name not in names:
        raise InvalidRequestError(f"baseline: expected one of {', '.join(names)}; got {name!r}")
