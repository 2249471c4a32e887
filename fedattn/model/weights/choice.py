"""In which form the weights of a model are held."""

from dataclasses import dataclass

import torch

from fedattn.model.weights.formats import BlockFormat

STORED = "stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What `load_model` makes of a prepared model.

    Attributes:
        dtype: of weights and activations; float32 with blocks.
        blocks: how linear layers and embeddings are held: `stored` for the blocks of the source,
            the name of a format that they are brought to, None for `dtype`.
    """

    dtype: torch.dtype = torch.float32
    blocks: str | None = None

    def __post_init__(self) -> None:
        if self.blocks is not None and self.dtype != torch.float32:
            raise ValueError(f"blocks are expanded to float32, not to {self.dtype}")

    @property
    def name(self) -> str:
        """As a user writes it; also that of their folder."""
        return self.blocks or str(self.dtype).removeprefix("torch.")

    @property
    def made_format(self) -> BlockFormat | None:
        """The format that weights are brought to here, so that they differ from the source's."""
        return None if self.blocks in {None, STORED} else BlockFormat[str(self.blocks).upper()]


FLOAT32_WEIGHTS = Weights()
STORED_WEIGHTS = Weights(blocks=STORED)
