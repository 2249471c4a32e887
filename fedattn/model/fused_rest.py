"""What follows attention in a block, for one token of each of several answers.

h += attention_norm(output(attended))
h += down_norm(down(activation(gate(m)) * up(m)))            m = mlp_norm(h)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fedattn.model.fused_form import Activation, FusedBlock
from fedattn.model.packing import Linear, Pack
from fedattn.model.projections import norm_factors

Norm = Callable[[torch.Tensor], torch.Tensor]
"""[..., d] to the same, float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Norms:
    """Makes the RMS norms of a model, in float32.

    Attributes:
        eps: added to mean squares.
        offset: added to weights.
    """

    eps: float
    offset: float

    def factors(self, module: Any) -> torch.Tensor:
        """[d] float32."""
        return norm_factors(module, self.offset)

    def pack(self, module: Any) -> Norm:
        """A norm."""
        factors = self.factors(module)
        scaled, size = factors * len(factors) ** 0.5, len(factors)

        def run(x: torch.Tensor) -> torch.Tensor:
            """Give x g / sqrt(mean(x^2) + eps), in half the calls of torch's own."""
            squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
            return torch.mul(x, scaled).mul_(squares.add_(size * self.eps).rsqrt_())

        return run

    def pack_if_any(self, module: Any) -> Norm | None:
        """A norm that not every family has."""
        return None if module is None else self.pack(module)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """Hidden states [N, d] and what heads attended to [N, Hq D], to the next hidden states [N, d].

    Attributes:
        output: [N, Hq D] to [N, d].
        attention_norm, down_norm: before the sums; None for none.
        mlp_norm: before gate and up.
        gate_up: [N, d] to [N, 2 ff].
        activation: of the gate.
        down: [N, ff] to [N, d].
    """

    output: Linear
    attention_norm: Norm | None
    mlp_norm: Norm
    gate_up: Linear
    activation: Activation
    down: Linear
    down_norm: Norm | None

    def __call__(self, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        hidden = hidden + _normed(self.attention_norm, self.output(attended))
        gate, up = self.gate_up(self.mlp_norm(hidden)).chunk(2, dim=-1)
        return hidden + _normed(self.down_norm, self.down(self.activation(gate) * up))


def _normed(norm: Norm | None, hidden: torch.Tensor) -> torch.Tensor:
    return hidden if norm is None else norm(hidden)


def pack_rest(block: FusedBlock, pack: Pack, norms: Norms, activation: Activation) -> Rest:
    """The rest of a block with its linear layers packed.

    Args:
        block: its modules.
        pack: packs linear layers.
        norms: makes its norms.
        activation: of its gates.
    """
    return Rest(
        output=pack([block.output]),
        attention_norm=norms.pack_if_any(block.attention_norm),
        mlp_norm=norms.pack(block.mlp_norm),
        gate_up=pack(block.gate_up),
        activation=activation,
        down=pack([block.down]),
        down_norm=norms.pack_if_any(block.down_norm),
    )
