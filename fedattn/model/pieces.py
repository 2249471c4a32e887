"""Feed-forward blocks that take a long prompt in pieces.

Their tensors are several times as wide as the hidden state: at 8k tokens those of SmolLM2-135M
take 144 MiB at once, in pieces of 1,024 tokens 18.
"""

from typing import Any

import torch

from fedattn.core.costs import TOKENS_AT_ONCE


class _InPieces:
    """Mixed into the class of a module that computes each token by itself."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """[B, T, d] to [B, T, d]."""
        compute: Any = super().forward  # type: ignore[misc]
        num_tokens = hidden.shape[1]
        if num_tokens <= TOKENS_AT_ONCE:
            whole: torch.Tensor = compute(hidden)
            return whole
        output = torch.empty_like(hidden)
        for start in range(0, num_tokens, TOKENS_AT_ONCE):
            here = slice(start, start + TOKENS_AT_ONCE)
            output[:, here] = compute(hidden[:, here])
        return output


def compute_in_pieces(module: Any) -> None:
    """Let a module take its tokens in pieces from now on; its parameters keep their names.

    Args:
        module: maps [B, T, d] to [B, T, d], each token by itself.
    """
    kind = type(module)
    if not issubclass(kind, _InPieces):
        module.__class__ = type(f"{kind.__name__}InPieces", (_InPieces, kind), {})
