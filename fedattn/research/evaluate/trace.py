"""Error propagation: how far hidden states are from centralised after every block."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fedattn.core.plans import shared_plan
from fedattn.core.spans import SessionLayout
from fedattn.model.attention import run_model
from fedattn.model.loading import LoadedModel
from fedattn.research.evaluate.plots import new_figure, save_figure
from fedattn.research.oracle import DenseMasks


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorTrace:
    """One participant's distance from centralised.

    Attributes:
        node_id: the participant.
        sync_layers: blocks at which it receives.
        errors: after each block: norm of the difference of a token's hidden state over the norm
            of centralised's, mean over its tokens.
    """

    node_id: str
    sync_layers: tuple[int, ...]
    errors: tuple[float, ...]


def trace_errors(
    model: LoadedModel, layout: SessionLayout, token_ids: list[int]
) -> tuple[ErrorTrace, ...]:
    """Traces of all participants, in token order, from two masked runs of one model.

    Args:
        model: the model.
        layout: spans and plans; every token is computed and every row travels.
        token_ids: public prefix and all spans joined.
    """
    everywhere = shared_plan(range(layout.num_layers)).publisher
    together = tuple(replace(member, plan=everywhere) for member in layout.members)
    changed = _hidden_states(model, layout, token_ids)
    exact = _hidden_states(model, replace(layout, members=together), token_ids)
    traces = []
    for member in layout.members:
        own = slice(member.span.start, member.span.stop)
        errors = [
            float(((a[own] - b[own]).norm(dim=-1) / b[own].norm(dim=-1)).mean())
            for a, b in zip(changed, exact, strict=True)
        ]
        traces.append(
            ErrorTrace(node_id=member.node_id, sync_layers=member.plan.layers, errors=tuple(errors))
        )
    return tuple(traces)


@torch.inference_mode()
def _hidden_states(
    model: LoadedModel, layout: SessionLayout, token_ids: list[int]
) -> list[torch.Tensor]:
    """[T, d] float32 after every block."""
    states: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: torch.Tensor) -> None:
        states.append(output[0].float())

    backbone: Any = model.backbone
    hooks = [block.register_forward_hook(keep) for block in backbone.layers]
    try:
        ids = torch.tensor(token_ids, dtype=torch.int64, device=model.device)
        positions = torch.arange(len(token_ids), device=model.device)
        run_model(model.backbone, ids, positions, DenseMasks(model, layout, 0, None))
    finally:
        for hook in hooks:
            hook.remove()
    return states


def mean_traces(cases: Sequence[tuple[ErrorTrace, ...]]) -> tuple[ErrorTrace, ...]:
    """Means over cases with the same participants."""
    means = []
    for same in zip(*cases, strict=True):
        layers = zip(*(trace.errors for trace in same), strict=True)
        means.append(replace(same[0], errors=tuple(sum(layer) / len(same) for layer in layers)))
    return tuple(means)


def draw_traces(traces: tuple[ErrorTrace, ...], title: str, path: Path) -> list[Path]:
    """One line a participant, dots where it synchronises; returns the files written.

    Raises:
        InvalidRequestError: matplotlib is not installed.
    """
    figure = new_figure(8, 4.5, title)
    axes = figure.subplots()
    for trace in traces:
        (line,) = axes.plot(trace.errors, label=trace.node_id)
        synced = [layer for layer in trace.sync_layers if layer < len(trace.errors)]
        dots = [trace.errors[layer] for layer in synced]
        axes.plot(synced, dots, "o", color=line.get_color(), markersize=4)
    axes.set(xlabel="block (dots: synchronises)", ylabel="relative distance from centralised")
    axes.legend(fontsize="small")
    return save_figure(figure, path)
