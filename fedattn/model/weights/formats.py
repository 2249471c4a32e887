"""The formats of ggml in which rows of weights are stored."""

from enum import Enum


class BlockFormat(Enum):
    """A format: its number in ggml and in GGUF files, weights a block, bytes a block."""

    Q4_0 = (2, 32, 18)
    Q4_1 = (3, 32, 20)
    Q5_0 = (6, 32, 22)
    Q5_1 = (7, 32, 24)
    Q8_0 = (8, 32, 34)
    Q2_K = (10, 256, 84)
    Q3_K = (11, 256, 110)
    Q4_K = (12, 256, 144)
    Q5_K = (13, 256, 176)
    Q6_K = (14, 256, 210)
    IQ4_NL = (20, 32, 18)
    IQ4_XS = (23, 256, 136)

    @property
    def number(self) -> int:
        return self.value[0]

    @property
    def block_size(self) -> int:
        """Weights a block."""
        return self.value[1]

    def row_bytes(self, num_weights: int) -> int:
        """Bytes of a row, which is whole blocks.

        Raises:
            ValueError: it is not.
        """
        _, block_size, block_bytes = self.value
        blocks, rest = divmod(num_weights, block_size)
        if rest:
            raise ValueError(f"{self.name} has blocks of {block_size}, a row of {num_weights} not")
        return int(blocks * block_bytes)

    def row_weights(self, num_bytes: int) -> int:
        """Weights of a row of so many bytes.

        Raises:
            ValueError: it ends within a block.
        """
        _, block_size, block_bytes = self.value
        blocks, rest = divmod(num_bytes, block_bytes)
        if rest or not blocks:
            raise ValueError(f"{self.name} has blocks of {block_bytes} bytes, {num_bytes} are none")
        return int(blocks * block_size)


MADE_HERE = (BlockFormat.Q8_0, BlockFormat.Q4_0, BlockFormat.Q4_K)
"""Those that float weights are brought to."""
