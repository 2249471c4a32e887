"""`fedattn simulate`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fedattn.cli.options import (
    AUTO,
    Codec,
    Independent,
    InputKeepRatio,
    JsonOut,
    KeepEnds,
    KeepRatio,
    MaxNewTokens,
    Model,
    Plan,
    Prefix,
    PublisherPlan,
    Seed,
    Selector,
    SystemPrompt,
    read_wish,
)
from fedattn.cli.outfiles import report_console, validate_out, write_out
from fedattn.cli.plans import choose
from fedattn.cli.terminal import progress, tracked
from fedattn.core.codecs import DEFAULT_CODEC
from fedattn.core.request import SessionOptions
from fedattn.core.spans import PrefixMode
from fedattn.research.tasks.cases import read_cases
from fedattn.runtime.extras import require_extras


def simulate(
    cases: Annotated[Path, typer.Option(help="JSONL of contexts, question, answer.")],
    model: Model = "default",
    plan: Plan = "auto",
    publisher_plan: PublisherPlan = None,
    codec: Codec = DEFAULT_CODEC,
    keep_ratio: KeepRatio = None,
    selector: Selector = AUTO,
    keep_ends: KeepEnds = 0,
    input_keep_ratio: InputKeepRatio = 1.0,
    seed: Seed = 0,
    prefix: Prefix = PrefixMode.PUBLIC,
    max_new_tokens: MaxNewTokens = 32,
    system_prompt: SystemPrompt = None,
    independent: Independent = False,
    tokens: Annotated[bool, typer.Option("--tokens", help="Add token ids and spans.")] = False,
    json_path: JsonOut = None,
) -> None:
    """Run cases over the in-process exchange, greedy, and score them."""
    require_extras("participant")
    validate_out("--json", json_path)
    SessionOptions(prefix=prefix, independent=independent)  # refuses what does not go together
    wish = read_wish(
        codec, keep_ratio, input_keep_ratio, selector=selector, keep_ends=keep_ends, seed=seed
    )
    given = read_cases(cases)
    from fedattn.model.engine import open_engine
    from fedattn.research.simulate import SimulationSettings, Simulator, summarize

    console = progress()
    engine = open_engine(model, system_prompt, progress=console.print)
    if independent:
        plan, publisher_plan = "none", publisher_plan or plan
    num_layers = engine.model.shape.num_layers
    chosen = choose(plan, publisher_plan, num_layers, engine.model.fingerprint, wish)
    settings = SimulationSettings(
        plans=chosen.plans,
        compression=chosen.compression,
        scorer=chosen.scorer,
        prefix=prefix,
        max_new_tokens=max_new_tokens,
        independent=independent,
    )
    running = Simulator(engine.prefiller, engine.tokenizer).run(given, settings)
    results = list(tracked(running, "cases", len(given), console))
    summary = summarize(results, with_tokens=tokens)
    if json_path is not None:
        write_out("--json", json_path, json.dumps(summary, indent=2) + "\n")
    report_console(json_path).print(_summary_line(len(results), summary))


def _summary_line(num_cases: int, summary: dict[str, Any]) -> str:
    return (
        f"{num_cases} cases: exact match {summary['exact_match']:.3f}, "
        f"NLL {summary['nll']:.3f}, KV {summary['kv_bytes']} bytes"
    )
