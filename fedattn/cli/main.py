"""The `fedattn` command. Each subcommand imports what it needs only when it runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedattn import __version__
from fedattn.core.codecs import CODEC_NAMES, DEFAULT_CODEC, codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import ConfigurationError, FedAttnError
from fedattn.core.selection import DEFAULT_SELECTOR, SELECTOR_NAMES

app = typer.Typer(
    help="Federated Attention: edge nodes answer one question without handing over their texts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
model_app = typer.Typer(help="Models on this machine.", no_args_is_help=True)
app.add_typer(model_app, name="model")
certs_app = typer.Typer(help="Certificates for mutual TLS.", no_args_is_help=True)
app.add_typer(certs_app, name="certs")

GatewayOption = Annotated[
    str, typer.Option("--gateway", envvar="FEDATTN_GATEWAY", help="URL of the gateway.")
]
CodecOption = Annotated[
    str, typer.Option(help=f"How KV rows are written: {', '.join(CODEC_NAMES)}.")
]
KeepRatioOption = Annotated[float, typer.Option(help="Share of the rows that travel.")]
SelectorOption = Annotated[
    str, typer.Option(help=f"Which rows travel: {', '.join(SELECTOR_NAMES)}.")
]
KeepEndsOption = Annotated[int, typer.Option(help="Rows at each span's ends that always travel.")]
InputKeepRatioOption = Annotated[
    float,
    typer.Option(help="Share of the contributors' tokens computed at all; loses information."),
]
IndependentOption = Annotated[
    bool,
    typer.Option(
        "--independent",
        help="Contributors follow the public prefix alone; --plan is the publisher's.",
    ),
]
SeedOption = Annotated[int, typer.Option(help="Of all random draws.")]


def main() -> None:
    """Entry point: our errors become one line and exit code 1."""
    try:
        app()
    except FedAttnError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        sys.exit(1)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@model_app.command("prepare")
def model_prepare(
    model: Annotated[
        str, typer.Argument(help="default, a folder, a .gguf file, or a hub id (owner/name).")
    ] = "default",
) -> None:
    """Convert a model once for fast, shared loading; later calls do nothing."""
    from fedattn.cli.prepare import prepare_command

    prepare_command(model)


@certs_app.command("init")
def certs_init(
    nodes: Annotated[
        list[str] | None,
        typer.Argument(help="Node ids; aggregator and gateway are made in any case."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of all certificates.")] = Path("certs"),
    days: Annotated[int, typer.Option(help="How long they are valid.")] = 825,
    renew: Annotated[bool, typer.Option("--renew", help="Make those anew that are there.")] = False,
    owner: Annotated[
        int | None, typer.Option(help="User id that gets each service's folder.")
    ] = None,
) -> None:
    """Make a private authority and a certificate a service; later calls add what is missing."""
    try:
        from fedattn.cli.certs import init_certificates
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{error.name} is not installed; certificates need: pip install 'fedattn[certs]'"
        ) from error

    init_certificates(out, nodes or [], days, renew=renew, owner=owner)


@app.command()
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
    codec: CodecOption = DEFAULT_CODEC,
    keep_ratio: KeepRatioOption = 1.0,
    selector: SelectorOption = DEFAULT_SELECTOR,
    keep_ends: KeepEndsOption = 0,
    input_keep_ratio: InputKeepRatioOption = 1.0,
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
    seed: SeedOption = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text.")] = None,
    min_participants: Annotated[int, typer.Option(help="Fewest, publisher included.")] = 2,
    deadline: Annotated[float, typer.Option(help="Seconds for everything.")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON only.")] = False,
    reuse: Annotated[bool, typer.Option(help="Use rows held since earlier queries.")] = True,
    independent: IndependentOption = False,
    timeline: Annotated[
        Path | None,
        typer.Option(help="Write what every node did when, as a Chrome trace (ui.perfetto.dev)."),
    ] = None,
) -> None:
    """Send a query to a running gateway; stream the answer, then the report."""
    from fedattn.cli.ask import ask_command
    from fedattn.cli.plans import write_out
    from fedattn.rest.faults import checked
    from fedattn.rest.query import CompressionBody, QueryBody, SamplingBody

    plan, publisher_plan = write_out(plan, publisher_plan)
    compression = checked(
        CompressionBody,
        codec=codec,
        keep_ratio=keep_ratio,
        selector=selector,
        keep_ends=keep_ends,
        input_keep_ratio=input_keep_ratio,
        seed=seed,
    )
    sampling = checked(
        SamplingBody,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
        stop=tuple(stop or ()),
    )
    body = checked(
        QueryBody,
        question=question,
        publisher=publisher,
        contributors=contributors.split(",") if contributors else None,
        plan=plan,
        publisher_plan=publisher_plan,
        compression=compression,
        kv_budget_bytes=kv_budget_bytes,
        link_rate_mbit_s=link_rate_mbit_s,
        link_time_s=link_time_s,
        prefix=prefix,
        min_participants=min_participants,
        deadline_s=deadline,
        reuse=reuse,
        independent=independent,
        timeline=timeline is not None,
        sampling=sampling,
    )
    ask_command(gateway, body, as_json=as_json, timeline=timeline)


@app.command()
def simulate(
    cases: Annotated[Path, typer.Option(help="JSONL of contexts, question, answer.")],
    model: Annotated[str, typer.Option(help="As for `model prepare`.")] = "default",
    plan: Annotated[str, typer.Option(help="Sync plan of the contributors.")] = "auto",
    publisher_plan: Annotated[
        str | None, typer.Option(help="Sync plan of the publisher; default: as --plan.")
    ] = None,
    codec: CodecOption = DEFAULT_CODEC,
    keep_ratio: KeepRatioOption = 1.0,
    selector: SelectorOption = DEFAULT_SELECTOR,
    keep_ends: KeepEndsOption = 0,
    input_keep_ratio: InputKeepRatioOption = 1.0,
    seed: SeedOption = 0,
    prefix: Annotated[str, typer.Option(help="public, or first as in the paper.")] = "public",
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens to decode.")] = 32,
    system_prompt: Annotated[str | None, typer.Option(help="Public system prompt.")] = None,
    independent: IndependentOption = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="Add token ids and spans.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write results here.")] = None,
) -> None:
    """Run cases over the in-process exchange, greedy, and score them."""
    from fedattn.cli.simulate import SimulateOptions, simulate_command

    simulate_command(
        SimulateOptions(
            cases=cases,
            model=model,
            plan=plan,
            publisher_plan=publisher_plan,
            compression=Compression(
                codec=codec_by_name(codec),
                keep_ratio=keep_ratio,
                selector=selector,
                keep_ends=keep_ends,
                input_keep_ratio=input_keep_ratio,
                seed=seed,
            ),
            prefix=prefix,
            max_new_tokens=max_new_tokens,
            system_prompt=system_prompt,
            independent=independent,
            with_tokens=tokens,
            json_path=json_path,
        )
    )


@app.command("eval")
def evaluate(
    task: Annotated[str, typer.Argument(help="retrieval, labels or gsm8k.")] = "retrieval",
    model: Annotated[str, typer.Option(help="As for `model prepare`.")] = "default",
    cases: Annotated[
        Path | None,
        typer.Option(help="JSONL of contexts, question, answer; of gsm8k question, answer."),
    ] = None,
    num_cases: Annotated[int, typer.Option(help="Most cases to run.")] = 60,
    num_contexts: Annotated[int, typer.Option(help="Contexts of a generated case.")] = 3,
    shots: Annotated[int, typer.Option(help="Exemplars of labels and gsm8k.")] = 8,
    segmentation: Annotated[
        str | None,
        typer.Option(help="tok-ag, sem-ag, tok-ex or sem-ex; default: a context a contributor."),
    ] = None,
    participants: Annotated[int, typer.Option("-n", help="With --segmentation.")] = 4,
    plan: Annotated[
        list[str] | None, typer.Option(help="Of the contributors; may be repeated.")
    ] = None,
    publisher_plan: Annotated[
        list[str] | None, typer.Option(help="Of the publisher; default: as --plan.")
    ] = None,
    codec: Annotated[list[str] | None, typer.Option(help="May be repeated; default fp32.")] = None,
    keep_ratio: Annotated[list[float] | None, typer.Option(help="May be repeated.")] = None,
    input_keep_ratio: Annotated[list[float] | None, typer.Option(help="May be repeated.")] = None,
    responder: Annotated[
        list[int] | None,
        typer.Option(help="Who answers, 1 is first; may be repeated; default: the publisher."),
    ] = None,
    selector: SelectorOption = DEFAULT_SELECTOR,
    seed: SeedOption = 0,
    prefix: Annotated[str, typer.Option(help="public, or first as in the paper.")] = "public",
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Most tokens to decode; default: the task's.")
    ] = None,
    system_prompt: Annotated[str | None, typer.Option(help="Public system prompt.")] = None,
    network: Annotated[
        bool, typer.Option("--network", help="A process a node, through the gateway.")
    ] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write results here.")] = None,
    plot_path: Annotated[
        Path | None, typer.Option("--plot", help="Draw a picture here, as PNG and SVG.")
    ] = None,
) -> None:
    """Score plans, codecs and ratios on a task, beside centralised and the publisher alone."""
    from fedattn.cli.evaluate import EvalOptions, eval_command

    eval_command(
        EvalOptions(
            task=task,
            model=model,
            cases=cases,
            num_cases=num_cases,
            num_contexts=num_contexts,
            shots=shots,
            segmentation=segmentation,
            participants=participants,
            plans=plan or ["auto"],
            publisher_plans=publisher_plan or [],
            codecs=codec or ["fp32"],
            keep_ratios=keep_ratio or [1.0],
            input_keep_ratios=input_keep_ratio or [1.0],
            responders=responder or [],
            selector=selector,
            seed=seed,
            prefix=prefix,
            max_new_tokens=max_new_tokens,
            system_prompt=system_prompt,
            network=network,
            json_path=json_path,
            plot_path=plot_path,
        )
    )


@app.command()
def trace(
    plan: Annotated[str, typer.Option(help="Sync plan of the contributors.")] = "auto",
    publisher_plan: Annotated[
        str | None, typer.Option(help="Sync plan of the publisher; default: as --plan.")
    ] = None,
    model: Annotated[str, typer.Option(help="As for `model prepare`.")] = "default",
    cases: Annotated[
        Path | None, typer.Option(help="JSONL of contexts, question, answer; default: generated.")
    ] = None,
    num_cases: Annotated[int, typer.Option(help="Most cases to run.")] = 16,
    num_contexts: Annotated[int, typer.Option(help="Contexts of a generated case.")] = 3,
    seed: SeedOption = 0,
    json_path: Annotated[Path | None, typer.Option("--json", help="Write results here.")] = None,
    plot_path: Annotated[
        Path | None, typer.Option("--plot", help="Draw a picture here, as PNG and SVG.")
    ] = None,
) -> None:
    """Show, block by block, how far each participant's hidden states are from centralised."""
    from fedattn.cli.trace import TraceOptions, trace_command

    trace_command(
        TraceOptions(
            model=model,
            cases=cases,
            num_cases=num_cases,
            num_contexts=num_contexts,
            plan=plan,
            publisher_plan=publisher_plan,
            seed=seed,
            json_path=json_path,
            plot_path=plot_path,
        )
    )


@app.command()
def calibrate(
    out: Annotated[Path, typer.Option(help="Profile to write, a .json file.")],
    model: Annotated[str, typer.Option(help="As for `model prepare`.")] = "default",
    cases: Annotated[
        Path | None, typer.Option(help="JSONL of contexts, question, answer; default: generated.")
    ] = None,
    layers: Annotated[int, typer.Option(help="Sync layers of the smallest plan.")] = 4,
    objective: Annotated[
        str, typer.Option(help="kl: stay near centralised; nll: of the given answers.")
    ] = "kl",
    search: Annotated[
        str, typer.Option(help="elimination, exchange, ranking or addition.")
    ] = "elimination",
    seed: Annotated[int, typer.Option(help="Of the cases.")] = 0,
    search_cases: Annotated[int, typer.Option(help="Generated cases to search with.")] = 96,
    held_out_cases: Annotated[int, typer.Option(help="Generated cases to measure with.")] = 120,
    budget_bytes: Annotated[
        int | None,
        typer.Option(help="Most KV bytes of a query, instead of --layers; codec auto."),
    ] = None,
    system_prompt: Annotated[str | None, typer.Option(help="Public system prompt.")] = None,
) -> None:
    """Find at which blocks nodes should synchronise, from few blocks to all; write a profile."""
    from fedattn.cli.calibrate import CalibrateOptions, calibrate_command

    calibrate_command(
        CalibrateOptions(
            model=model,
            out=out,
            cases=cases,
            layers=layers,
            objective=objective,
            search=search,
            seed=seed,
            num_search=search_cases,
            num_held_out=held_out_cases,
            budget_bytes=budget_bytes,
            system_prompt=system_prompt,
        )
    )


@app.command()
def cost(
    contexts: Annotated[
        str, typer.Option(help="Tokens of each contributor's context, such as 200,300,150.")
    ],
    publisher_tokens: Annotated[int, typer.Option(help="Tokens of the publisher's span.")] = 40,
    prefix_tokens: Annotated[int, typer.Option(help="Tokens of the public prefix.")] = 30,
    model: Annotated[str, typer.Option(help="As for `model prepare`.")] = "default",
    plan: Annotated[str, typer.Option(help="Sync plan of the contributors.")] = "auto",
    publisher_plan: Annotated[
        str | None, typer.Option(help="Sync plan of the publisher; default: as --plan.")
    ] = None,
    codec: CodecOption = DEFAULT_CODEC,
    keep_ratio: KeepRatioOption = 1.0,
    input_keep_ratio: InputKeepRatioOption = 1.0,
    weights: Annotated[
        str, typer.Option(help="Precision it computes in: float32, bfloat16, float16.")
    ] = "float32",
    max_new_tokens: Annotated[int, typer.Option(help="Tokens of the answer.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """Say what a query would cost each participant: bytes, FLOPs, memory. Runs nothing."""
    from fedattn.cli.cost import CostOptions, cost_command

    cost_command(
        CostOptions(
            model=model,
            contexts=contexts,
            publisher_tokens=publisher_tokens,
            prefix_tokens=prefix_tokens,
            plan=plan,
            publisher_plan=publisher_plan,
            compression=Compression(
                codec=codec_by_name(codec),
                keep_ratio=keep_ratio,
                input_keep_ratio=input_keep_ratio,
            ),
            weights=weights,
            max_new_tokens=max_new_tokens,
            as_json=as_json,
        )
    )


@app.command()
def demo() -> None:
    """Start a network here, ask one question, compare with one model, stop."""
    from fedattn.cli.demo import demo_command

    demo_command()


@app.command()
def up(
    port: Annotated[int, typer.Option(help="Port of the gateway.")] = 8000,
) -> None:
    """Start the demo's network and keep it running until Ctrl-C."""
    from fedattn.cli.demo import up_command

    up_command(port)


if __name__ == "__main__":
    main()
