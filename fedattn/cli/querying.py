"""Commands that ask, until their modules take their own signatures."""

from pathlib import Path
from typing import Annotated

import typer

from fedattn.cli.options import (
    Codec,
    Independent,
    InputKeepRatio,
    KeepEnds,
    KeepRatio,
    Seed,
    Selector,
)
from fedattn.core.codecs import DEFAULT_CODEC
from fedattn.core.selection import DEFAULT_SELECTOR
from fedattn.runtime.extras import require_extras

GatewayOption = Annotated[
    str, typer.Option("--gateway", envvar="FEDATTN_GATEWAY", help="URL of the gateway.")
]


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    gateway: GatewayOption = "http://127.0.0.1:8000",
    publisher: Annotated[str | None, typer.Option(help="Who asks; default: the first.")] = None,
    contributors: Annotated[
        str | None, typer.Option(help="Comma-separated ids in token order; default: all joined.")
    ] = None,
    plan: Annotated[str, typer.Option(help="Sync plan of the contributors.")] = "auto",
    publisher_plan: Annotated[
        str | None, typer.Option(help="Sync plan of the publisher; default: as --plan.")
    ] = None,
    codec: Codec = DEFAULT_CODEC,
    keep_ratio: KeepRatio = 1.0,
    selector: Selector = DEFAULT_SELECTOR,
    keep_ends: KeepEnds = 0,
    input_keep_ratio: InputKeepRatio = 1.0,
    kv_budget_bytes: Annotated[
        int | None, typer.Option(help="Most bytes of KV; the aggregator adapts to it.")
    ] = None,
    link_rate_mbit_s: Annotated[
        float | None, typer.Option(help="Rate of the slowest link; with --link-time-s a budget.")
    ] = None,
    link_time_s: Annotated[
        float | None, typer.Option(help="Seconds the KV may take on that link.")
    ] = None,
    prefix: Annotated[str, typer.Option(help="public, or first as in the paper.")] = "public",
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens to decode.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Probability mass kept.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Tokens kept, 0 for all.")] = 0,
    seed: Seed = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text.")] = None,
    min_participants: Annotated[int, typer.Option(help="Fewest, publisher included.")] = 2,
    deadline: Annotated[float, typer.Option(help="Seconds for everything.")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON only.")] = False,
    reuse: Annotated[bool, typer.Option(help="Use rows held since earlier queries.")] = True,
    independent: Independent = False,
    timeline: Annotated[
        Path | None,
        typer.Option(help="Write what every node did when, as a Chrome trace (ui.perfetto.dev)."),
    ] = None,
) -> None:
    """Send a query to a running gateway; stream the answer, then the report."""
    from fedattn.cli.ask import ask_command
    from fedattn.cli.plans import write_out

    plan, publisher_plan = write_out(plan, publisher_plan)
    body = {
        "question": question,
        "publisher": publisher,
        "contributors": contributors.split(",") if contributors else None,
        "plan": plan,
        "publisher_plan": publisher_plan,
        "codec": codec,
        "keep_ratio": keep_ratio,
        "selector": selector,
        "keep_ends": keep_ends,
        "input_keep_ratio": input_keep_ratio,
        "seed": seed,
        "kv_budget_bytes": kv_budget_bytes,
        "link_rate_mbit_s": link_rate_mbit_s,
        "link_time_s": link_time_s,
        "prefix": prefix,
        "min_participants": min_participants,
        "deadline_s": deadline,
        "reuse": reuse,
        "independent": independent,
        "timeline": timeline is not None,
        "sampling": {
            "max_new_tokens": max_new_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "seed": seed,
            "stop": stop or [],
        },
    }
    present = {key: value for key, value in body.items() if value is not None}
    ask_command(gateway, present, as_json=as_json, timeline=timeline)


def demo() -> None:
    """Start a network here, ask one question, compare with one model, stop."""
    require_extras("gateway", "participant")
    from fedattn.cli.demo import demo_command

    demo_command()


def up(
    port: Annotated[int, typer.Option(help="Port of the gateway.")] = 8000,
) -> None:
    """Start the demo's network and keep it running until Ctrl-C."""
    require_extras("gateway", "participant")
    from fedattn.cli.demo import up_command

    up_command(port)
