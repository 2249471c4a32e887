"""`fedattn simulate`."""

import json
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from fedattn.cli.plans import read_plans
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidRequestError
from fedattn.core.sampling import SamplingParams
from fedattn.core.spans import PrefixMode


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """Options of the command, as given."""

    cases: Path
    model: str
    plan: str
    publisher_plan: str | None
    compression: Compression
    prefix: str
    max_new_tokens: int
    system_prompt: str | None
    independent: bool
    with_tokens: bool
    json_path: Path | None


def simulate_command(options: SimulateOptions) -> None:
    """Run all cases; write JSON to a file if one is named, and the means to the terminal.

    Raises:
        FedAttnError: an option, the model or the cases do not fit.
    """
    prefix = _prefix_mode(options.prefix)
    SamplingParams(max_new_tokens=options.max_new_tokens)
    if options.json_path is not None and not options.json_path.absolute().parent.is_dir():
        raise InvalidRequestError(f"--json {options.json_path}: no such folder; make it first")

    from fedattn.model.loading import load_model, load_tokenizer
    from fedattn.model.prefill import Prefiller
    from fedattn.model.prepare import prepare_model
    from fedattn.model.prompt import DEFAULT_SYSTEM_PROMPT, PromptTokenizer
    from fedattn.research.simulate import SimulationSettings, Simulator, summarize
    from fedattn.research.tasks.cases import read_cases

    cases = read_cases(options.cases)
    console = Console(stderr=True, highlight=False)
    prepared = prepare_model(options.model, progress=console.print)
    tokenizer = PromptTokenizer(
        load_tokenizer(prepared), options.system_prompt or DEFAULT_SYSTEM_PROMPT
    )
    model = load_model(prepared)
    plan, publisher_plan = options.plan, options.publisher_plan
    if options.independent:
        plan, publisher_plan = "none", publisher_plan or plan
    plans = read_plans(plan, publisher_plan, model.shape.num_layers, prepared.fingerprint)
    simulator = Simulator(Prefiller(model), tokenizer)
    settings = SimulationSettings(
        plans=plans,
        compression=options.compression,
        prefix=prefix,
        max_new_tokens=options.max_new_tokens,
        independent=options.independent,
    )
    running = simulator.run(cases, settings)
    results = list(track(running, total=len(cases), description="cases", console=console))
    summary = summarize(results, with_tokens=options.with_tokens)
    if options.json_path is not None:
        options.json_path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    print(
        f"{len(results)} cases: exact match {summary['exact_match']:.3f}, "
        f"NLL {summary['nll']:.3f}, KV {summary['kv_bytes']} bytes"
    )


def _prefix_mode(name: str) -> PrefixMode:
    try:
        return PrefixMode(name)
    except ValueError:
        known = ", ".join(mode.value for mode in PrefixMode)
        raise InvalidRequestError(f"unknown prefix mode {name!r}; use one of {known}") from None
