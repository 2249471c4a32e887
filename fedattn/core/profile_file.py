"""Profiles as JSON files."""

import base64
import json
import math
from typing import Any

import numpy as np

from fedattn.core.errors import InvalidPlanError, InvalidRequestError
from fedattn.core.plans import MAX_LAYERS, PlanSpec, RolePlans, SyncPlan
from fedattn.core.profile import Profile, ProfilePoint
from fedattn.core.row_scores import RowScorer
from fedattn.core.types import FloatArray

PROFILE_VERSION = 3
MAX_PROFILE_BYTES = 16 << 20
_FORMAT = "fedattn-profile"
_UNREADABLE = (
    *(ValueError, TypeError, KeyError, AttributeError, InvalidPlanError, InvalidRequestError),
    *(OverflowError, RecursionError),  # a number beyond all floats; lists within lists
)
"""What reading JSON of another shape than a profile ends in."""


def write_profile(profile: Profile) -> str:
    """The JSON text of a profile."""
    scorer = profile.scorer
    document = {
        "format": _FORMAT,
        "version": PROFILE_VERSION,
        "model": profile.fingerprint,
        "num_layers": profile.num_layers,
        "num_kv_heads": profile.num_kv_heads,
        "contributors": str(profile.plans.contributors) or "none",
        "publisher": str(profile.plans.publisher) or "none",
        **({"asked": str(profile.plans.asked)} if profile.plans.asked.layers else {}),
        "default": profile.default,
        "least_rows": profile.least_rows,
        **({} if profile.context_tokens is None else {"context_tokens": profile.context_tokens}),
        "points": [_write_point(point) for point in profile.points],
        **({} if scorer is None else {"row_scores": _write_scorer(scorer)}),
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
            num_kv_heads=int(document["num_kv_heads"]),
            plans=RolePlans(
                contributors=_read_layers(document["contributors"]),
                publisher=_read_layers(document["publisher"]),
                asked=_read_layers(document.get("asked", "none")),
            ),
            points=tuple(_read_point(point) for point in document["points"]),
            default=int(document["default"]),
            scorer=_read_scorer(document["row_scores"]) if "row_scores" in document else None,
            least_rows=_whole_number(document, "least_rows", least=0),
            origin=dict(document.get("origin", {})),
            context_tokens=(
                _whole_number(document, "context_tokens", least=1)
                if document.get("context_tokens") is not None
                else None
            ),
        )
    except _UNREADABLE as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise InvalidPlanError(
            f"profile {name} cannot be read: {reason[:200]}; make one with fedattn calibrate"
        ) from error


def _whole_number(document: dict[str, Any], key: str, *, least: int) -> int:
    number = document[key]
    if type(number) is not int or number < least:
        raise ValueError(f"{key}: expected a whole number from {least}, got {number!r}")
    return number


def _check_format(document: dict[str, Any]) -> None:
    found = document["format"], document["version"]
    if found != (_FORMAT, PROFILE_VERSION):
        raise ValueError(f"expected {_FORMAT} of version {PROFILE_VERSION}, got {found}")


def _write_point(point: ProfilePoint) -> dict[str, Any]:
    return {
        "keep_ratio": point.keep_ratio,
        "codec": point.codec,
        "head_shares": base64.b64encode(point.head_shares).decode(),
        "fewer_bytes": round(point.fewer_bytes, 2),
        "divergence": round(point.divergence, 5),
        "nll_change": round(point.nll_change, 5),
    }


def _read_point(record: dict[str, Any]) -> ProfilePoint:
    def number(key: str) -> float:
        value = record[key]
        if not (isinstance(value, int | float) and math.isfinite(value)):
            raise ValueError(f"{key}: expected a number, got {value!r}")
        return float(value)

    return ProfilePoint(
        keep_ratio=number("keep_ratio"),
        codec=str(record["codec"]),
        head_shares=base64.b64decode(record["head_shares"], validate=True),
        fewer_bytes=number("fewer_bytes"),
        divergence=number("divergence"),
        nll_change=number("nll_change"),
    )


def _write_scorer(scorer: RowScorer) -> dict[str, Any]:
    """Half precision is plenty for weights: scores are compared, not counted."""
    return {
        "shape": list(scorer.weights.shape),
        "weights": base64.b64encode(scorer.weights.astype("<f2").tobytes()).decode(),
        "bias": base64.b64encode(scorer.bias.astype("<f4").tobytes()).decode(),
    }


def _read_scorer(record: dict[str, Any]) -> RowScorer:
    layers, heads, width = (int(size) for size in record["shape"])
    if not (0 < layers <= MAX_LAYERS and heads > 0 and width > 0):
        raise ValueError(f"row_scores: expected positive sizes, got {record['shape']}")

    def array(key: str, dtype: str) -> FloatArray:
        data = base64.b64decode(record[key], validate=True)
        return np.frombuffer(data, dtype=dtype).astype(np.float32)

    return RowScorer(
        weights=array("weights", "<f2").reshape(layers, heads, width),
        bias=array("bias", "<f4").reshape(layers, heads),
    )


def _read_layers(text: str) -> SyncPlan:
    spec = PlanSpec(text)
    if not spec.is_explicit:
        raise ValueError(f"expected a list of blocks, got {text[:80]!r}")
    return spec.resolve(MAX_LAYERS)
