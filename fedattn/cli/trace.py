"""`fedattn trace`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from fedattn.cli.options import (
    Cases,
    JsonOut,
    Model,
    NumCases,
    NumContexts,
    Plan,
    PlotOut,
    PublisherPlan,
    Seed,
)
from fedattn.cli.outfiles import report_console, validate_out, write_out
from fedattn.cli.plans import choose
from fedattn.cli.terminal import plain_table, progress, tracked
from fedattn.core.plans import RolePlans
from fedattn.research.tasks.cases import Case, read_cases
from fedattn.research.tasks.retrieval import generate_cases
from fedattn.runtime.extras import require_extras

if TYPE_CHECKING:
    from fedattn.model.engine import Engine
    from fedattn.research.evaluate.trace import ErrorTrace


def trace(
    plan: Plan = "auto",
    publisher_plan: PublisherPlan = None,
    model: Model = "default",
    cases: Cases = None,
    num_cases: NumCases = 16,
    num_contexts: NumContexts = 3,
    seed: Seed = 0,
    json_path: JsonOut = None,
    plot_path: PlotOut = None,
) -> None:
    """Show, block by block, how far each participant's hidden states are from centralised."""
    require_extras("participant", *(["plots"] if plot_path else []))
    validate_out("--json", json_path)
    validate_out("--plot", plot_path)
    given = (
        read_cases(cases)
        if cases
        else generate_cases(num_cases, seed=seed, num_contexts=num_contexts)
    )
    alike = _of_one_size(given)[:num_cases]
    from fedattn.model.engine import open_engine
    from fedattn.research.evaluate.trace import draw_traces

    console = progress()
    engine = open_engine(model, progress=console.print)
    num_layers = engine.model.shape.num_layers
    plans = choose(plan, publisher_plan, num_layers, engine.model.fingerprint).plans
    traces = _mean_traces(engine, alike, plans)
    out = report_console(json_path)
    out.print(_table(traces, num_layers))
    out.print("relative distance from centralised; * synchronises at this block")
    if json_path is not None:
        document = {"cases": len(alike), "participants": [asdict(trace) for trace in traces]}
        write_out("--json", json_path, json.dumps(document, indent=1) + "\n")
    if plot_path is not None:
        title = f"contributors {plans.contributors}, publisher {plans.publisher}"
        for path in draw_traces(traces, title, plot_path):
            console.print(f"wrote {path}")


def _of_one_size(cases: list[Case]) -> list[Case]:
    """Those with as many contexts as the first: means are over the same participants."""
    return [case for case in cases if len(case.contexts) == len(cases[0].contexts)]


def _mean_traces(
    engine: "Engine", cases: Sequence[Case], plans: RolePlans
) -> "tuple[ErrorTrace, ...]":
    from fedattn.research.evaluate.trace import mean_traces, trace_errors
    from fedattn.research.prompts import tokenize_case

    num_layers = engine.model.shape.num_layers
    prompts = [tokenize_case(case, engine.tokenizer, num_layers, plans) for case in cases]
    return mean_traces(
        [
            trace_errors(engine.model, prompt.layout, prompt.token_ids)
            for prompt in tracked(prompts, "cases", len(prompts), progress())
        ]
    )


def _table(traces: "Sequence[ErrorTrace]", num_layers: int) -> Table:
    table = plain_table(right=("block", *(trace.node_id for trace in traces)))
    for layer in range(num_layers):
        marks = ["*" if layer in trace.sync_layers else " " for trace in traces]
        cells = [
            f"{trace.errors[layer]:.4f}{mark}" for trace, mark in zip(traces, marks, strict=True)
        ]
        table.add_row(str(layer), *cells)
    return table
