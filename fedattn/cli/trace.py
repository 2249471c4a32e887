"""`fedattn trace`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from fedattn.cli.plans import read_plans
from fedattn.research.tasks.cases import read_cases
from fedattn.research.tasks.retrieval import generate_cases


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceOptions:
    """Options of the command, as given."""

    model: str
    cases: Path | None
    num_cases: int
    num_contexts: int
    plan: str
    publisher_plan: str | None
    seed: int
    json_path: Path | None
    plot_path: Path | None


def trace_command(options: TraceOptions) -> None:
    """Show how far every participant's hidden states are from centralised, block by block.

    Raises:
        FedAttnError: an option, the model or the cases do not fit.
    """
    given = read_cases(options.cases) if options.cases else None
    cases = given or generate_cases(
        options.num_cases, seed=options.seed, num_contexts=options.num_contexts
    )
    # means are over the same participants
    cases = [case for case in cases if len(case.contexts) == len(cases[0].contexts)]
    from fedattn.model.loading import load_model, load_tokenizer
    from fedattn.model.prepare import prepare_model
    from fedattn.model.prompt import PromptTokenizer
    from fedattn.research.evaluate.trace import draw_traces, mean_traces, trace_errors
    from fedattn.research.prompts import tokenize_case

    console = Console(stderr=True, highlight=False)
    prepared = prepare_model(options.model, progress=console.print)
    tokenizer, model = PromptTokenizer(load_tokenizer(prepared)), load_model(prepared)
    plans = read_plans(
        options.plan, options.publisher_plan, model.shape.num_layers, prepared.fingerprint
    )
    prompts = [
        tokenize_case(case, tokenizer, model.shape.num_layers, plans)
        for case in cases[: options.num_cases]
    ]
    traces = mean_traces(
        [
            trace_errors(model, prompt.layout, prompt.token_ids)
            for prompt in track(prompts, "cases", console=console)
        ]
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("block", justify="right")
    for trace in traces:
        table.add_column(trace.node_id, justify="right")
    for layer in range(model.shape.num_layers):
        marks = ["*" if layer in trace.sync_layers else " " for trace in traces]
        cells = [
            f"{trace.errors[layer]:.4f}{mark}" for trace, mark in zip(traces, marks, strict=True)
        ]
        table.add_row(str(layer), *cells)
    out = Console(highlight=False)
    out.print(table)
    out.print("relative distance from centralised; * synchronises at this block")
    if options.json_path is not None:
        document = {"cases": len(prompts), "participants": [asdict(trace) for trace in traces]}
        options.json_path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.plot_path is not None:
        title = f"contributors {plans.contributors}, publisher {plans.publisher}"
        for path in draw_traces(traces, title, options.plot_path):
            console.print(f"wrote {path}")
