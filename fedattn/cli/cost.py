"""`fedattn cost`."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.table import Table

from fedattn.cli.options import (
    AsJson,
    Codec,
    InputKeepRatio,
    KeepRatio,
    MaxNewTokens,
    Model,
    Plan,
    PublisherPlan,
    read_wish,
)
from fedattn.cli.plans import choose
from fedattn.cli.terminal import output, plain_table, progress, write_json
from fedattn.core.asked_costs import ExchangeTimes, Link, exchange_times
from fedattn.core.codecs import DEFAULT_CODEC, codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.costs import MemberCost, ModelSizes, session_bytes, session_costs
from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import RolePlans, shared_plan
from fedattn.core.spans import SessionLayout, build_layout
from fedattn.runtime.extras import require_extras

_MAX_TOKENS = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanLengths:
    """Tokens of the public prefix and of each participant's span."""

    prefix: int
    contributors: tuple[int, ...]
    publisher: int


def cost(
    contexts: Annotated[
        str, typer.Option(help="Tokens of each contributor's context, such as 200,300,150.")
    ],
    publisher_tokens: Annotated[
        int, typer.Option(min=0, max=_MAX_TOKENS, help="Tokens of the publisher's span.")
    ] = 40,
    prefix_tokens: Annotated[
        int, typer.Option(min=0, max=_MAX_TOKENS, help="Tokens of the public prefix.")
    ] = 30,
    model: Model = "default",
    plan: Plan = "auto",
    publisher_plan: PublisherPlan = None,
    codec: Codec = DEFAULT_CODEC,
    keep_ratio: KeepRatio = None,
    input_keep_ratio: InputKeepRatio = 1.0,
    weights: Annotated[
        str, typer.Option(help="Form of the weights, as a participant's --weights.")
    ] = "auto",
    max_new_tokens: MaxNewTokens = 64,
    link_rate_mbit_s: Annotated[
        float, typer.Option(min=0.001, max=1e6, help="Rate of every node's link.")
    ] = 100.0,
    link_rtt_ms: Annotated[
        float, typer.Option(min=0, max=60_000, help="Round trip between a node and the aggregator.")
    ] = 1.0,
    as_json: AsJson = False,
) -> None:
    """Say what a query would cost each participant: bytes, FLOPs, memory. Runs nothing."""
    require_extras("participant")
    wish = read_wish(codec, keep_ratio, input_keep_ratio)
    lengths = SpanLengths(
        prefix=prefix_tokens, contributors=_read_lengths(contexts), publisher=publisher_tokens
    )
    from fedattn.model.families import read_max_positions
    from fedattn.model.loading import read_sizes
    from fedattn.model.placement import choose_weights
    from fedattn.model.prepare import prepare_model, prepared_files

    told = progress()
    prepared = prepare_model(model, progress=told.print)
    sizes = read_sizes(prepared, choose_weights(weights, prepared))
    chosen = choose(plan, publisher_plan, sizes.kv.num_layers, prepared.fingerprint, wish)
    chosen.compression.check_shape(sizes.kv)
    layout = _lay_out(lengths, sizes, chosen.compression, chosen.plans)
    costs = session_costs(layout, sizes, num_new_tokens=max_new_tokens)
    reference = _uncompressed_bytes(lengths, sizes)
    link = Link(bytes_per_s=link_rate_mbit_s * 1e6 / 8, round_trip_s=link_rtt_ms / 1e3)
    times = exchange_times(layout, chosen.plans, sizes, link, max_new_tokens)
    if as_json:
        write_json(_to_json(layout, costs, reference) | {"exchange": asdict(times)})
        return
    out = output()
    out.print(_table(layout, costs, sizes.kv.num_kv_heads))
    out.print(_total_line(costs, reference))
    link_words = f"links of {link_rate_mbit_s:g} Mbit/s and {link_rtt_ms:g} ms"
    out.print(_exchange_line(times, chosen.plans, link_words))
    window = read_max_positions(prepared_files(prepared).config())
    if (excess := _in_all(lengths) + max_new_tokens - window) > 0:
        told.print(
            f"{excess} tokens too many: texts, prefix, question and answer have to fit the model's "
            f"window of {window}; a query takes part of longer texts",
            style="yellow",
        )


def _read_lengths(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise InvalidRequestError(
            f"--contexts {text[:80]!r}: expected token counts separated by commas, such as 200,300"
        )
    too_long = [part for part in parts if len(part) > 9 or int(part) > _MAX_TOKENS]
    if too_long:
        raise InvalidRequestError(
            f"--contexts: expected at most {_MAX_TOKENS} tokens each, got {too_long[0][:20]}"
        )
    return tuple(int(part) for part in parts)


def _lay_out(
    lengths: SpanLengths, sizes: ModelSizes, compression: Compression, plans: RolePlans
) -> SessionLayout:
    contributors = [(f"contributor-{i + 1}", n) for i, n in enumerate(lengths.contributors)]
    return build_layout(
        num_layers=sizes.kv.num_layers,
        prefix_len=lengths.prefix,
        contributors=contributors,
        publisher=("publisher", lengths.publisher),
        plans=plans,
        compression=compression,
    )


def _uncompressed_bytes(lengths: SpanLengths, sizes: ModelSizes) -> int:
    """KV bytes of the same query with every row of every layer in bf16."""
    bf16 = Compression(codec=codec_by_name("bf16"))
    full = _lay_out(lengths, sizes, bf16, shared_plan(range(sizes.kv.num_layers)))
    return sum(member.total_up for member in session_bytes(full, sizes.kv))


def _total_line(costs: tuple[MemberCost, ...], reference: int) -> str:
    total = sum(cost.traffic.total_up for cost in costs)
    share = f"1/{reference / total:.1f} of" if total else "instead of"
    return f"KV sent {total / 1024:.1f} KiB at most, {share} bf16 at every layer"


def _in_all(lengths: SpanLengths) -> int:
    return lengths.prefix + sum(lengths.contributors) + lengths.publisher


def _exchange_line(times: ExchangeTimes, plans: RolePlans, link: str) -> str:
    blocks = len(plans.asked.layers)
    return (
        f"asked instead, at {blocks} blocks: {times.asked_bytes / 1024:.1f} KiB, "
        f"{times.round_trips} round trips; over {link} rows take {times.rows:.2f} s, asking "
        f"{times.asked:.2f} s besides computing"
    )


def _table(layout: SessionLayout, costs: tuple[MemberCost, ...], num_heads: int) -> Table:
    table = plain_table(
        "participant",
        right=(
            "tokens",
            "rows a layer",
            "KiB up",
            "KiB down",
            "GFLOP prefill",
            "GFLOP decode",
            "MiB peak",
        ),
    )
    for member, cost in zip(layout.members, costs, strict=True):
        table.add_row(
            member.node_id,
            str(len(member.span)),
            f"{member.mean_rows(cost.traffic.up, num_heads):.0f}",
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
        "codec": layout.publisher.compression.codec.name,
        "keep_ratio": layout.publisher.compression.keep_ratio,
        "selector": layout.publisher.compression.selector,
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
