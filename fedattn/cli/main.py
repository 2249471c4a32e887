"""The `fedattn` command. Each subcommand imports what it needs only when it runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedattn import __version__
from fedattn.core.errors import FedAttnError

app = typer.Typer(
    help="Federated Attention: edge nodes answer one question without handing over their texts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
model_app = typer.Typer(help="Models on this machine.", no_args_is_help=True)
app.add_typer(model_app, name="model")

GatewayOption = Annotated[
    str, typer.Option("--gateway", envvar="FEDATTN_GATEWAY", help="URL of the gateway.")
]


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
    codec: Annotated[str | None, typer.Option(help="How KV rows are written.")] = None,
    prefix: Annotated[str, typer.Option(help="public, or first as in the paper.")] = "public",
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens to decode.")] = 64,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Probability mass kept.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Tokens kept, 0 for all.")] = 0,
    seed: Annotated[int, typer.Option(help="Of the random draw.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text.")] = None,
    min_participants: Annotated[int, typer.Option(help="Fewest, publisher included.")] = 2,
    deadline: Annotated[float, typer.Option(help="Seconds for everything.")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON only.")] = False,
) -> None:
    """Send a query to a running gateway; stream the answer, then the report."""
    from fedattn.cli.ask import ask_command

    body = {
        "question": question,
        "publisher": publisher,
        "contributors": contributors.split(",") if contributors else None,
        "plan": plan,
        "publisher_plan": publisher_plan,
        "codec": codec,
        "prefix": prefix,
        "min_participants": min_participants,
        "deadline_s": deadline,
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
    ask_command(gateway, present, as_json=as_json)


@app.command()
def simulate(
    cases: Annotated[Path, typer.Option(help="JSONL of contexts, question, answer.")],
    model: Annotated[str, typer.Option(help="As for `model prepare`.")] = "default",
    plan: Annotated[str, typer.Option(help="Sync plan of the contributors.")] = "auto",
    publisher_plan: Annotated[
        str | None, typer.Option(help="Sync plan of the publisher; default: as --plan.")
    ] = None,
    codec: Annotated[str, typer.Option(help="How KV rows are written.")] = "bf16",
    prefix: Annotated[str, typer.Option(help="public, or first as in the paper.")] = "public",
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens to decode.")] = 32,
    system_prompt: Annotated[str | None, typer.Option(help="Public system prompt.")] = None,
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
            publisher_plan=publisher_plan or plan,
            codec=codec,
            prefix=prefix,
            max_new_tokens=max_new_tokens,
            system_prompt=system_prompt,
            with_tokens=tokens,
            json_path=json_path,
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
