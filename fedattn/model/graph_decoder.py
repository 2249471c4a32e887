"""Decoding by one graph of ggml a step, with weights in the blocks of their source.

All of a step after the embedding is drawn once for the answers that run, and computed until one
of them joins or leaves, or has filled the rows that the graph goes over: nothing is done between
the operations. Rows are in half precision. What becomes of an answer depends on no other.
"""

import threading
from collections.abc import Sequence
from typing import Any

import torch

from fedattn.core.errors import ModelError
from fedattn.model.families import FAMILIES, activation_of, read_bases
from fedattn.model.graph_block import GATES, Tokens, read_graph_block
from fedattn.model.graph_layers import GraphLinear, GraphNorms
from fedattn.model.graph_rows import AnswerRows
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult
from fedattn.model.rotaries import read_turnings
from fedattn.model.weights.ggml import ggml
from fedattn.model.weights.graphs import Draft

_MOST_ANSWERS = 16
"""In one graph."""
_AHEAD = 64
"""Steps that a graph lasts: drawing it takes as long as one, and rows not yet there cost little."""
_TENSORS_A_BLOCK, _TENSORS_AN_ANSWER, _TENSORS_OF_HEADS = 64, 12, 14
"""At most."""


class _Step:
    """A graph for some answers, which it must be run with until it is drawn anew."""

    def __init__(self, decoder: "GraphDecoder", states: Sequence[AnswerRows]) -> None:
        library = ggml().graphs
        draft = Draft(library, _count_tensors(states))
        first, num_answers = decoder.blocks[0], len(states)
        size, attended = first.output.num_rows, first.output.width
        self._num_steps = [state.num_steps + _AHEAD for state in states]
        self._tokens = Tokens(draft, self._num_steps, size, attended)
        self._logits = torch.empty(num_answers, decoder.head.num_rows)
        for index, block in enumerate(decoder.blocks):
            block.draw(self._tokens, [state.blocks[index] for state in states])
        normed = decoder.norm.draw(draft, self._tokens.drawn_hidden)
        logits = decoder.head.draw(draft, normed)
        draft.into(self._logits, 0, "cont", logits)
        self._run = library.draw(draft)

    def reaches(self, states: Sequence[AnswerRows]) -> bool:
        """Whether it goes over the rows of one more step of each of the answers."""
        return all(
            state.num_steps < most for state, most in zip(states, self._num_steps, strict=True)
        )

    def run(self, hidden: torch.Tensor, positions: Sequence[int]) -> torch.Tensor:
        """Embedded tokens [N, d] at their positions to logits [N, V]."""
        self._tokens.hidden.copy_(hidden)
        self._tokens.positions.copy_(torch.tensor(positions))
        self._run(torch.get_num_threads())
        return self._logits.clone()


def _count_tensors(states: Sequence[AnswerRows]) -> int:
    """At most so many are in the graph of these answers."""
    count = _TENSORS_A_BLOCK * (len(states[0].blocks) + 1)
    for state in states:
        heads = sum(len(block.heads) for block in state.blocks)
        count += _TENSORS_AN_ANSWER * len(state.blocks) + _TENSORS_OF_HEADS * heads
    return count


class GraphDecoder:
    """`Decoder` on the CPU for a model in blocks.

    Args:
        model: on the CPU.

    Attributes:
        blocks: of the model.
        norm: after them.
        head: the last layer.

    Raises:
        ModelError: its blocks are not of the form that is written out here.
        ConfigurationError: ggml is not here.
    """

    def __init__(self, model: LoadedModel) -> None:
        if model.read_block is None:
            raise ModelError("the fused decoder cannot run this model's blocks; decode in float32")
        ggml()
        backbone: Any = model.backbone
        config = backbone.config
        offset = FAMILIES[config.model_type].norm_offset
        norms = GraphNorms(eps=float(config.rms_norm_eps), offset=offset)
        gate = GATES[activation_of(config)]
        num_heads, shape = model.sizes.num_query_heads, model.shape
        turnings = read_turnings(backbone.rotary_emb, read_bases(config))
        self._embed, self._windows = backbone.embed_tokens, model.windows
        self.blocks = [
            read_graph_block(model.read_block(layer), norms, turning, gate, num_heads, shape)
            for layer, turning in zip(backbone.layers, turnings, strict=True)
        ]
        self.norm = norms.of(backbone.norm)
        self.head = GraphLinear.of(model.head)

    def begin(self, prefill: PrefillResult, room: int) -> AnswerRows:
        """Copy the rows of a prefill, with room for so many steps."""
        return AnswerRows(prefill.cache.layers, self._windows, prefill.next_position, room)

    @torch.inference_mode()
    def step(self, states: Sequence[AnswerRows], tokens: Sequence[int]) -> torch.Tensor:
        """As `Decoder.step`."""
        hidden = self._embed(torch.tensor(tokens)).float()
        parts = [
            self._step(states[first : first + _MOST_ANSWERS], hidden[first : first + _MOST_ANSWERS])
            for first in range(0, len(states), _MOST_ANSWERS)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _step(self, states: Sequence[AnswerRows], hidden: torch.Tensor) -> torch.Tensor:
        for state in states:
            state.open()
        logits = self._drawn(states).run(hidden, [state.position for state in states])
        for state in states:
            state.advance()
        return logits

    def _drawn(self, states: Sequence[AnswerRows]) -> _Step:
        """Kept with the first answer, so that no rows outlive all answers."""
        answers = tuple(state.serial for state in states)
        wanted = (answers, threading.get_ident())
        kept: tuple[Any, Any] = states[0].drawn or (None, None)
        for state in states[1:]:
            state.drawn = None  # once the first: its graph reads the rows of answers that are gone
        if kept[0] != wanted or not kept[1].reaches(states):
            kept = states[0].drawn = wanted, _Step(self, states)
        return kept[1]  # type: ignore[no-any-return]
