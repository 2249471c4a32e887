"""One block as a part of a graph of ggml, for one token of each of several answers.

The form is that of `FusedBlock`. Weights in blocks are multiplied as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedattn.core.types import KvShape
from fedattn.model.fused_form import FusedBlock
from fedattn.model.graph_layers import GraphLinear, GraphNorm, GraphNorms, draw_if_any
from fedattn.model.graph_rows import BlockRows, Heads
from fedattn.model.rotaries import Turning
from fedattn.model.weights.graphs import Draft

GATES = {"silu": "swiglu", "swish": "swiglu", "gelu_pytorch_tanh": "geglu"}
"""ggml's functions of gates, by the names of activations in a configuration."""
_HALVES = 2
"""Mode of a rotation that turns scalar i against i + R."""
_FLOAT, _HALF = 4, 2
"""Bytes."""


class Tokens:
    """One token of each of N answers in a graph.

    Args:
        draft: of the graph; an attribute too.
        num_steps: of each of N answers when the graph is drawn anew at the latest.
        size: d.
        attended_size: Hq D.

    Attributes:
        num_answers: N.
        num_steps: of each answer when the graph must be drawn anew.
        hidden: [N, d] float32, before a block and after it.
        attended: [N, Hq D] float32, what the heads of a block saw.
        positions: [N] int32.
    """

    def __init__(
        self, draft: Draft, num_steps: Sequence[int], size: int, attended_size: int
    ) -> None:
        self.draft = draft
        self.num_steps, num_answers = num_steps, len(num_steps)
        self.num_answers = num_answers
        self.hidden = torch.empty(num_answers, size)
        self.attended = torch.empty(num_answers, attended_size)
        self.positions = torch.empty(num_answers, dtype=torch.int32)
        self.drawn_hidden = draft.take(self.hidden)
        self.drawn_attended = draft.take(self.attended)
        self.drawn_positions = draft.take(self.positions)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphBlock:
    """A `FusedBlock` ready to be drawn.

    Attributes:
        norm: before attention.
        query_key_value: side by side queries, keys and values.
        query_norm, key_norm: of every head; None for none.
        turning: of queries and keys.
        scaling: factor on the attention scores.
        output: of what heads saw.
        attention_norm, down_norm: before the sums; None for none.
        mlp_norm: before gate and up.
        gate_up: side by side gate and up.
        gate: ggml's function of both.
        down: the last one.
        num_heads: Hq.
        shape: of its rows.
    """

    norm: GraphNorm
    query_key_value: tuple[GraphLinear, ...]
    query_norm: GraphNorm | None
    key_norm: GraphNorm | None
    turning: Turning
    scaling: float
    output: GraphLinear
    attention_norm: GraphNorm | None
    mlp_norm: GraphNorm
    gate_up: tuple[GraphLinear, ...]
    gate: str
    down: GraphLinear
    down_norm: GraphNorm | None
    num_heads: int
    shape: KvShape

    def draw(self, tokens: Tokens, rows: Sequence[BlockRows]) -> None:
        """Take the tokens through the block.

        Args:
            tokens: of N answers.
            rows: of each answer at this block; each is extended.
        """
        draft = tokens.draft
        with draft.lent_rooms():
            self._draw_attention(tokens, rows)
            output = self.output.draw(draft, tokens.drawn_attended)
            output = draw_if_any(draft, self.attention_norm, output)
            hidden = draft.between("add", tokens.drawn_hidden, output)
            down = self.down.draw(draft, self._draw_gate(tokens, self.mlp_norm.draw(draft, hidden)))
            down = draw_if_any(draft, self.down_norm, down)
            draft.into(tokens.hidden, 0, "add", hidden, down)

    def _draw_gate(self, tokens: Tokens, normed: int) -> int:
        draft = tokens.draft
        parts = [layer.draw(draft, normed) for layer in self.gate_up]
        if len(parts) == 1:
            return draft.between(self.gate, *parts)
        return draft.between(f"{self.gate}_split", *parts)

    def _draw_attention(self, tokens: Tokens, rows: Sequence[BlockRows]) -> None:
        draft = tokens.draft
        normed = self.norm.draw(draft, tokens.drawn_hidden)
        parts = [layer.draw(draft, normed) for layer in self.query_key_value]
        of_kv = self.shape.num_kv_heads
        sizes = (self.num_heads, of_kv, of_kv)
        if len(parts) == 1:
            queries, keys, values = (
                self._heads(tokens, parts[0], sum(sizes), at, count)
                for at, count in zip((0, sizes[0], sizes[0] + of_kv), sizes, strict=True)
            )
        else:
            queries, keys, values = (
                self._heads(tokens, part, count, 0, count)
                for part, count in zip(parts, sizes, strict=True)
            )
        queries = self._turned(tokens, draw_if_any(draft, self.query_norm, queries))
        keys = self._turned(tokens, draw_if_any(draft, self.key_norm, keys))
        values = draft.between("cont", values) if len(parts) == 1 else values
        for answer, of_answer in enumerate(rows):
            self._draw_append(tokens, answer, of_answer, keys, values)
        for answer, of_answer in enumerate(rows):
            first = answer * of_kv
            for heads in of_answer.heads:
                extent = heads.extent(tokens.num_steps[answer])
                with draft.lent_rooms():
                    self._draw_heads(tokens, queries, first, heads, extent)
                first += len(heads.keys)

    def _heads(self, tokens: Tokens, product: int, of: int, at: int, count: int) -> int:
        """Heads [N, count, D] of a product [N, of D], from one of them on."""
        size = _FLOAT * self.shape.head_dim
        shape = self.shape.head_dim, count, tokens.num_answers
        return tokens.draft.view(product, *shape, strides=(size, size * of), offset=size * at)

    def _turned(self, tokens: Tokens, heads: int) -> int:
        """Heads [N, H, D] at their positions, contiguous."""
        draft = tokens.draft
        turned = 2 * len(self.turning.frequencies)
        if not turned:
            return draft.between("cont", heads)
        periods = draft.take(1 / self.turning.frequencies)
        numbers = turned, _HALVES, 0, 1.0, 1.0, 0.0, self.turning.scale, 0.0, 0.0
        return draft.between("rope_ext", heads, tokens.drawn_positions, periods, *numbers)

    def _draw_append(
        self, tokens: Tokens, answer: int, rows: BlockRows, keys: int, values: int
    ) -> None:
        """Add the row of an answer; keys and values [N, Hkv, D]."""
        draft = tokens.draft
        heads, size = self.shape.num_kv_heads, self.shape.head_dim
        row, offset = _FLOAT * size, _FLOAT * size * heads * answer
        key = draft.view(keys, size, heads, strides=(row,), offset=offset)
        value = draft.view(values, 1, heads * size, strides=(_FLOAT,), offset=offset)
        for memory, width, new, where in (
            (rows.keys, size, key, rows.next_keys),
            (rows.values, 1, value, rows.next_values),
        ):
            into = draft.take(memory, width, memory.numel() // width)
            draft.compute(draft.within("set_rows", into, new, draft.take(where)))

    def _draw_heads(
        self, tokens: Tokens, queries: int, first: int, heads: Heads, extent: int
    ) -> None:
        """What some key/value heads of an answer see.

        Args:
            tokens: get what the query heads attended to.
            queries: [N, Hq, D].
            first: the first of the heads, in the order of answers and heads.
            heads: their rows.
            extent: rows to go over; the mask hides those that are not there yet.
        """
        draft = tokens.draft
        size, capacity = heads.keys.shape[2], heads.keys.shape[1]
        count, share = len(heads.keys), self.num_heads // self.shape.num_kv_heads
        row, column, offset = _HALF * size, _HALF * capacity, first * share * size
        keys = draft.view(
            draft.take(heads.keys), size, extent, count, strides=(row, row * capacity)
        )
        values = draft.view(
            draft.take(heads.values), extent, size, count, strides=(column, column * size)
        )
        asked = draft.view(
            queries,
            *(size, share, count),
            strides=(_FLOAT * size, _FLOAT * size * share),
            offset=_FLOAT * offset,
        )
        scores = draft.reshape(draft.between("mul_mat", keys, asked), extent, 1, share * count)
        mask = draft.view(draft.take(heads.mask), extent)
        weights = draft.within("soft_max_ext_inplace", scores, mask, self.scaling, 0.0)
        weights = draft.reshape(weights, extent, share, count)
        draft.into(tokens.attended, offset, "mul_mat", values, weights)


def read_graph_block(  # noqa: PLR0913, PLR0917 - spelt out
    block: FusedBlock,
    norms: GraphNorms,
    turning: Turning,
    gate: str,
    num_heads: int,
    shape: KvShape,
) -> GraphBlock:
    """A block ready to be drawn.

    Args:
        block: its modules.
        norms: makes its norms.
        turning: its rotation.
        gate: ggml's function of gate and up.
        num_heads: Hq.
        shape: of its rows.
    """
    return GraphBlock(
        norm=norms.of(block.norm),
        query_key_value=tuple(map(GraphLinear.of, block.query_key_value)),
        query_norm=norms.of_any(block.query_norm),
        key_norm=norms.of_any(block.key_norm),
        turning=turning,
        scaling=block.scaling,
        output=GraphLinear.of(block.output),
        attention_norm=norms.of_any(block.attention_norm),
        mlp_norm=norms.of(block.mlp_norm),
        gate_up=tuple(map(GraphLinear.of, block.gate_up)),
        gate=gate,
        down=GraphLinear.of(block.down),
        down_norm=norms.of_any(block.down_norm),
        num_heads=num_heads,
        shape=shape,
    )
