"""What a publisher heard of rows that stay with their owner, and which rows that fits.

Of M queries of a key/value head, o_m = sum_j w_mj v_j over the owner's rows j, where the weights
w_mj = exp(q_m k_j - lse_m) follow from one key each: lse comes along. So with outputs as the rows
of a matrix Y [M, D], Y = W V, and the weights of every row are a combination of the columns of Y as
long as there are no more rows than these. A candidate's key gives weights of its own. Only those of
a key that is among the rows lie in the span of Y, but for rounding and noise; and the combination
of outputs that passes such weights and as little else as it can is the value that goes with that
key. Both are old in array processing: subspace tests (R. O. Schmidt, Multiple emitter location,
1986) and least variance (J. Capon, High-resolution frequency-wavenumber spectrum analysis, 1969).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fedattn.core.asked import PartialAttention
from fedattn.core.types import FloatArray

_LEAST = 1e-4
"""Of a distance: what float32 leaves of an exact hit."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told:
    """Queries, and what an owner made of them.

    Attributes:
        queries: [Hq, T, D] float32 after RoPE, scaled, as they travelled.
        part: as it travelled.
    """

    queries: FloatArray
    part: PartialAttention


class Heard:
    """All that was heard at one block, less what is known by now.

    Args:
        told: at least one.
        num_kv_heads: Hkv.
        noise: standard deviation of errors of an output, as a share of the root mean square of all.
    """

    def __init__(self, told: Sequence[Told], num_kv_heads: int, noise: float) -> None:
        queries, outputs, lses = (
            torch.from_numpy(np.concatenate(arrays, axis=1))
            for arrays in (
                [one.queries for one in told],
                [one.part.output for one in told],
                [one.part.lse for one in told],
            )
        )
        size = queries.shape[-1]
        self._queries = queries.reshape(num_kv_heads, -1, size)  # [Hkv, M, D], M = Hq / Hkv * T
        self._lse = lses.reshape(num_kv_heads, -1, 1)
        outputs = outputs.reshape(num_kv_heads, -1, size)
        self._unit = outputs.square().mean(dim=(1, 2), keepdim=True).sqrt()  # [Hkv, 1, 1]
        ones = self._unit.expand(-1, outputs.shape[1], 1)  # weights of a query sum up to 1
        self._left = torch.cat([outputs, ones], dim=-1).double()  # Y, [Hkv, M, D + 1]
        self._error = (noise * self._unit.double()) ** 2 * outputs.shape[1]
        self._basis = self._make_basis()

    def distances(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """How little candidates fit, [C] float32: 0 fits, 1 does not.

        Geometric mean, over heads, of two: the share of the length of a candidate's weights that
        lies outside of the span of what was heard; and 1 - cosine between its value and the one
        that goes with such weights.

        Args:
            keys: [Hkv, C, D] after RoPE.
            values: [Hkv, C, D].
        """
        logs = self._queries @ keys.transpose(1, 2) - self._lse  # [Hkv, M, C]
        weights = (logs - logs.amax(dim=1, keepdim=True).clamp_min(0)).exp().double()
        within = self._basis @ weights  # [Hkv, D + 1, C]
        whole = weights.square().sum(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
        outside = (1 - within.square().sum(dim=1) / whole).clamp_min(0).sqrt()  # [Hkv, C]
        passed = (weights - self._basis.transpose(1, 2) @ within).transpose(1, 2) @ self._left
        apart = 1 - torch.cosine_similarity(passed[..., :-1], values.double(), dim=-1)
        both = (outside + _LEAST).log() + (apart + _LEAST).log()
        return (both.mean(dim=0) / 2).exp().float()

    def take_off(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Subtract what one row has to do with it, now that it is thought to be known.

        Args:
            keys: [Hkv, 1, D] after RoPE.
            values: [Hkv, 1, D].
        """
        logs = self._queries @ keys.transpose(1, 2) - self._lse  # [Hkv, M, 1]
        row = torch.cat([values, self._unit], dim=-1)  # [Hkv, 1, D + 1]
        self._left -= (logs.clamp_max(0).exp() @ row).double()
        self._basis = self._make_basis()

    def _make_basis(self) -> torch.Tensor:
        """What maps weights [M] into the span of Y [D + 1], ridged by the errors in it."""
        gram = self._left.transpose(1, 2) @ self._left
        gram += self._error * torch.eye(gram.shape[-1], dtype=gram.dtype)
        factor = torch.linalg.cholesky(gram)
        basis: torch.Tensor = torch.linalg.solve_triangular(
            factor, self._left.transpose(1, 2), upper=False
        )
        return basis
