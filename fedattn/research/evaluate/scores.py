"""What one case scores under one variant, and means over cases."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseScore:
    """One case under one variant.

    Attributes:
        text: what was decoded.
        match: whether it is right.
        nll: mean negative log-likelihood of the given answer, nats a token; None if unknown.
        divergence: mean KL divergence of the next-token distribution from centralised along
            centralised's answer, nats a token; None if unknown.
        kv_bytes: bytes of all frames.
        gflops: of the busiest participant: prefill and decoding.
        memory_mib: peak of the largest participant, by the cost model.
    """

    text: str
    match: bool
    nll: float | None
    divergence: float | None
    kv_bytes: int
    gflops: float | None = None
    memory_mib: float | None = None


ScoresByName = dict[str, CaseScore]
"""One case under every variant."""


def summarize_scores(scores: list[CaseScore]) -> dict[str, float | int | None]:
    """Means over the cases in which a value is known; KV bytes are a mean too."""

    def mean(name: str) -> float | None:
        known = [value for score in scores if (value := getattr(score, name)) is not None]
        return float(np.mean(known)) if known else None

    return {
        "cases": len(scores),
        "exact_match": float(np.mean([score.match for score in scores])),
        **{name: mean(name) for name in ("nll", "divergence", "kv_bytes", "gflops", "memory_mib")},
    }
