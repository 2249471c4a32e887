"""`fedattn cost`."""

import json
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from fedattn.cli.plans import read_plans
from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.costs import MemberCost, ModelSizes, session_bytes, session_costs
from fedattn.core.errors import InvalidRequestError
from fedattn.core.spans import RolePlans, SessionLayout, build_layout, shared_plan

_MAX_TOKENS = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class CostOptions:
    """Options of the command, as given."""

    model: str
    contexts: str
    publisher_tokens: int
    prefix_tokens: int
    plan: str
    publisher_plan: str | None
    compression: Compression
    weights: str
    max_new_tokens: int
    as_json: bool


def cost_command(options: CostOptions) -> None:
    """Print what a session would take, participant by participant; nothing is run.

    Raises:
        FedAttnError: an option does not fit the model.
    """
    lengths = _read_lengths(options.contexts)
    for name in ("publisher_tokens", "prefix_tokens", "max_new_tokens"):
        _check_tokens(name, getattr(options, name))
    from fedattn.model.loading import read_sizes
    from fedattn.model.placement import choose_dtype
    from fedattn.model.prepare import prepare_model

    dtype = choose_dtype(options.weights)
    console = Console(stderr=True, highlight=False)
    prepared = prepare_model(options.model, progress=console.print)
    sizes = read_sizes(prepared, dtype)
    num_layers = sizes.kv.num_layers
    plans = read_plans(options.plan, options.publisher_plan, num_layers, prepared.fingerprint)
    layout = _lay_out(options, lengths, sizes, options.compression, plans)
    costs = session_costs(layout, sizes, num_new_tokens=options.max_new_tokens)
    bf16 = Compression(codec=codec_by_name("bf16"))
    full = _lay_out(options, lengths, sizes, bf16, shared_plan(range(num_layers)))
    reference = sum(member.total_up for member in session_bytes(full, sizes.kv))
    if options.as_json:
        print(json.dumps(_to_json(layout, costs, reference), indent=2))
        return
    out = Console(highlight=False)
    out.print(_table(layout, costs))
    total = sum(cost.traffic.total_up for cost in costs)
    share = f"1/{reference / total:.1f} of" if total else "instead of"
    out.print(f"KV sent {total / 1024:.1f} KiB, {share} bf16 at every layer")


def _read_lengths(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise InvalidRequestError(
            f"--contexts {text[:80]!r}: expected token counts separated by commas, such as 200,300"
        )
    lengths = [int(part) for part in parts]
    for length in lengths:
        _check_tokens("contexts", length)
    return lengths


def _check_tokens(name: str, number: int) -> None:
    if not 0 <= number <= _MAX_TOKENS:
        raise InvalidRequestError(f"{name} must be between 0 and {_MAX_TOKENS}, got {number}")


def _lay_out(
    options: CostOptions,
    lengths: list[int],
    sizes: ModelSizes,
    compression: Compression,
    plans: RolePlans,
) -> SessionLayout:
    return build_layout(
        num_layers=sizes.kv.num_layers,
        prefix_len=options.prefix_tokens,
        contributors=[(f"contributor-{i + 1}", length) for i, length in enumerate(lengths)],
        publisher=("publisher", options.publisher_tokens),
        plans=plans,
        compression=compression,
    )


def _table(layout: SessionLayout, costs: tuple[MemberCost, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("participant")
    for title in ("tokens", "rows a layer", "KiB up", "KiB down"):
        table.add_column(title, justify="right")
    for title in ("GFLOP prefill", "GFLOP decode", "MiB peak"):
        table.add_column(title, justify="right")
    for member, cost in zip(layout.members, costs, strict=True):
        table.add_row(
            member.node_id,
            str(len(member.span)),
            str(member.num_sent if cost.traffic.up else 0),
            f"{cost.traffic.total_up / 1024:.1f}",
            f"{cost.traffic.total_down / 1024:.1f}",
            f"{cost.flops_prefill / 1e9:.2f}",
            f"{cost.flops_decode / 1e9:.2f}",
            f"{cost.peak_memory_bytes / 2**20:.0f}",
        )
    return table


def _to_json(
    layout: SessionLayout, costs: tuple[MemberCost, ...], reference: int
) -> dict[str, Any]:
    return {
        "kv_bytes": sum(cost.traffic.total_up for cost in costs),
        "kv_bytes_bf16_every_layer": reference,
        "participants": [
            {
                "node_id": member.node_id,
                "role": member.role.value,
                "span_len": len(member.span),
                "bytes_up": cost.traffic.total_up,
                "bytes_down": cost.traffic.total_down,
                "flops_prefill": cost.flops_prefill,
                "flops_decode": cost.flops_decode,
                "peak_memory_bytes": cost.peak_memory_bytes,
                "layers": [
                    {
                        "layer": layer,
                        "up": cost.traffic.up.get(layer, 0),
                        "down": cost.traffic.down.get(layer, 0),
                    }
                    for layer in sorted({*cost.traffic.up, *cost.traffic.down})
                ],
            }
            for member, cost in zip(layout.members, costs, strict=True)
        ],
    }
