"""What follows attention in a block, for one token of each of several answers.

h += attention_norm(output(attended))
h += down_norm(down(activation(gate(m)) * up(m)))            m = mlp_norm(h)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import silu

from fedattn.model.fused_form import Activation, FusedBlock
from fedattn.model.packing import Linear, Pack
from fedattn.model.projections import norm_factors
from fedattn.model.weights.ggml import GatedForm, ggml
from fedattn.model.weights.matrix import FEW, BlocksStack

Norm = Callable[[torch.Tensor], torch.Tensor]
"""[..., d] to the same, float32."""
Rest = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Hidden states [N, d] and what heads attended to [N, Hq D], to the next hidden states [N, d]."""


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
class PlainRest:
    """By operations of torch, one after the other.

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


class BlocksRest:
    """By one graph of ggml, over blocks as they are; many rows at once by operations of torch.

    Args:
        plain: the same, one operation after the other; an attribute too.
        stacks: output, gate and up, down.
        factors: [d] of the norm before gate and up.
        eps: of that norm.
    """

    def __init__(
        self,
        plain: PlainRest,
        stacks: tuple[BlocksStack, BlocksStack, BlocksStack],
        factors: torch.Tensor,
        eps: float,
    ) -> None:
        (output,), (gate, up), (down,) = (stack.matrices for stack in stacks)
        self.plain, self._factors = plain, factors.contiguous()
        self._form = GatedForm(
            output=output.form,
            gate=gate.form,
            up=up.form,
            down=down.form,
            inner_size=gate.num_rows,
            eps=eps,
        )
        matrices = [matrix.blocks.data_ptr() for matrix in (gate, up, down)]
        self._addresses = (output.blocks.data_ptr(), self._factors.data_ptr(), *matrices)

    def __call__(self, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        if hidden.shape[0] > FEW:
            return self.plain(hidden, attended)
        return ggml().finish_block(
            self._form, self._addresses, attended.contiguous(), hidden.contiguous()
        )


def pack_rest(block: FusedBlock, pack: Pack, norms: Norms, activation: Activation) -> Rest:
    """The rest of a block with its linear layers packed.

    Args:
        block: its modules.
        pack: packs linear layers.
        norms: makes its norms.
        activation: of its gates.
    """
    plain = PlainRest(
        output=pack([block.output]),
        attention_norm=norms.pack_if_any(block.attention_norm),
        mlp_norm=norms.pack(block.mlp_norm),
        gate_up=pack(block.gate_up),
        activation=activation,
        down=pack([block.down]),
        down_norm=norms.pack_if_any(block.down_norm),
    )
    has_norms = plain.attention_norm is not None or plain.down_norm is not None
    match plain.output, plain.gate_up, plain.down:
        case BlocksStack() as output, BlocksStack() as gate_up, BlocksStack() as down if (
            activation is silu and not has_norms and len(gate_up.matrices) == 2
        ):
            factors = norms.factors(block.mlp_norm)
            return BlocksRest(plain, (output, gate_up, down), factors, norms.eps)
    return plain
