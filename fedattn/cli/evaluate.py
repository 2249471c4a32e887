"""`fedattn eval`."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from fedattn.cli.network import NodePlan, local_network
from fedattn.cli.plans import read_plans
from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidRequestError
from fedattn.research.tasks.cases import read_cases
from fedattn.research.tasks.gsm8k import gsm8k_task
from fedattn.research.tasks.labels import labels_task
from fedattn.research.tasks.retrieval import generate_cases
from fedattn.research.tasks.segmentation import Segmentation
from fedattn.research.tasks.task import Task

if TYPE_CHECKING:
    from fedattn.model.prepare import PreparedModel
    from fedattn.research.evaluate.network import NetworkRuns
    from fedattn.research.evaluate.runs import CaseScore, InProcessRuns, Variant

TASKS = ("retrieval", "labels", "gsm8k")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """Options of the command, as given."""

    task: str
    model: str
    cases: Path | None
    num_cases: int
    num_contexts: int
    shots: int
    segmentation: str | None
    participants: int
    plans: list[str]
    publisher_plans: list[str]
    codecs: list[str]
    keep_ratios: list[float]
    input_keep_ratios: list[float]
    responders: list[int]
    selector: str
    seed: int
    prefix: str
    max_new_tokens: int | None
    system_prompt: str | None
    network: bool
    json_path: Path | None
    plot_path: Path | None


def eval_command(options: EvalOptions) -> None:
    """Run a task under every combination of the options, beside the two ends.

    Raises:
        FedAttnError: an option, the model or the cases do not fit.
    """
    for name, path in (("--json", options.json_path), ("--plot", options.plot_path)):
        if path is not None and not path.absolute().parent.is_dir():
            raise InvalidRequestError(f"{name} {path}: no such folder; make it first")
    task = read_task(options)
    from fedattn.model.prepare import prepare_model
    from fedattn.research.evaluate.results import ResultLog

    console = Console(stderr=True, highlight=False)
    prepared = prepare_model(options.model, progress=console.print)
    with ExitStack() as stack:
        variants = make_variants(options, prepared)
        log_path = options.json_path or Path(stack.enter_context(TemporaryDirectory())) / "x"
        log = ResultLog(
            log_path.with_suffix(".cases.jsonl"), _identity(options, task, variants, prepared)
        )
        left = task.cases[len(log.done) :]
        if left:
            runs = stack.enter_context(_runs(options, prepared, task))
            if log.done:
                console.print(f"{len(log.done)} cases were done before")
            for case in track(left, "cases", console=console):
                scores = runs.run_case(task, case, variants)
                log.add(
                    {variant.name: score for variant, score in zip(variants, scores, strict=True)}
                )
        _show(options, task, variants, log.done, console)


def read_task(options: EvalOptions) -> Task:
    """The task of the options.

    Raises:
        InvalidRequestError: it is unknown, or its cases cannot be read.
    """
    match options.task:
        case "retrieval":
            cases = (
                read_cases(options.cases)[: options.num_cases]
                if options.cases
                else generate_cases(
                    options.num_cases, seed=options.seed, num_contexts=options.num_contexts
                )
            )
            return Task(name="retrieval", cases=tuple(cases))
        case "labels":
            return labels_task(options.num_cases, seed=options.seed, num_exemplars=options.shots)
        case "gsm8k":
            return gsm8k_task(options.cases, options.num_cases, num_shots=options.shots)
        case unknown:
            raise InvalidRequestError(f"unknown task {unknown!r}; use one of {', '.join(TASKS)}")


def make_variants(options: EvalOptions, prepared: "PreparedModel") -> "list[Variant]":
    """The two ends, then every combination of plans, codecs and ratios; names are unique.

    Raises:
        InvalidRequestError: a plan, codec or ratio does not fit.
    """
    from fedattn.model.loading import read_sizes
    from fedattn.research.evaluate.runs import Variant, ends

    num_layers = read_sizes(prepared).kv.num_layers
    variants = {variant.name: variant for variant in ends(num_layers)}
    publisher_plans: list[str | None] = [*options.publisher_plans] or [None]
    responders: list[int | None] = [*options.responders] or [None]
    grid = product(
        options.plans,
        publisher_plans,
        options.codecs,
        options.keep_ratios,
        options.input_keep_ratios,
        responders,
    )
    for plan, publisher_plan, codec, keep_ratio, input_keep_ratio, responder in grid:
        plans = read_plans(plan, publisher_plan, num_layers, prepared.fingerprint)
        name = plan if publisher_plan is None else f"{plan} publisher {publisher_plan}"
        name += f" {codec}" if len(options.codecs) > 1 or codec != "fp32" else ""
        name += f" keep {keep_ratio:g}" if keep_ratio < 1 else ""
        name += f" input {input_keep_ratio:g}" if input_keep_ratio < 1 else ""
        name += "" if responder is None else f" responder {responder}"
        compression = Compression(
            codec=codec_by_name(codec),
            keep_ratio=keep_ratio,
            input_keep_ratio=input_keep_ratio,
            selector=options.selector,
            seed=options.seed,
        )
        variants[name] = Variant(
            name=name, plans=plans, compression=compression, responder=responder
        )
    return list(variants.values())


@contextmanager
def _runs(
    options: EvalOptions, prepared: "PreparedModel", task: Task
) -> "Iterator[InProcessRuns | NetworkRuns]":
    if options.network:
        with _network_runs(options, task) as runs:
            yield runs
        return
    from fedattn.core.spans import PrefixMode
    from fedattn.model.loading import load_model, load_tokenizer
    from fedattn.model.prefill import Prefiller
    from fedattn.model.prompt import DEFAULT_SYSTEM_PROMPT, PromptTokenizer
    from fedattn.research.evaluate.runs import InProcessRuns, PromptSegmentation

    tokenizer = PromptTokenizer(
        load_tokenizer(prepared), options.system_prompt or DEFAULT_SYSTEM_PROMPT
    )
    shape = PromptSegmentation(
        segmentation=None if options.segmentation is None else _segmentation(options.segmentation),
        num_participants=options.participants,
        prefix=PrefixMode(options.prefix),
        max_new_tokens=options.max_new_tokens,
    )
    yield InProcessRuns(Prefiller(load_model(prepared)), tokenizer, shape)


@contextmanager
def _network_runs(options: EvalOptions, task: Task) -> "Iterator[NetworkRuns]":
    """A network of as many contributors as the largest case has contexts."""
    from fedattn.research.evaluate.network import NetworkRuns
    from fedattn.rest.client import GatewayClient

    if not task.is_chat or options.segmentation is not None or options.responders:
        raise InvalidRequestError(
            "--network runs whole contexts in chat prompts, a node each, and the publisher "
            "answers; leave out --segmentation and --responder, and choose the task retrieval"
        )
    nodes = [f"contributor-{i + 1}" for i in range(max(len(c.contexts) for c in task.cases))]
    with TemporaryDirectory() as folder, local_network() as network:
        files = {node: Path(folder) / f"{node}.txt" for node in nodes}
        network.start_aggregator()
        flags = [f"--system-prompt={options.system_prompt}"] if options.system_prompt else []
        for node, file in files.items():
            file.write_text("", encoding="utf-8")
            plan = NodePlan(node_id=node, context=file, model=options.model)
            network.start_participant(plan, *flags)
        exact = (*flags, "--decode-weights=float32")  # equal to an evaluation in one process
        network.start_participant(NodePlan(node_id="publisher", model=options.model), *exact)
        network.start_gateway(["publisher"])
        for _ in network.wait_ready([*nodes, "publisher"]):
            pass

        client = GatewayClient(network.gateway_url)
        yield NetworkRuns(client.ask, files, options.max_new_tokens)


def _segmentation(name: str) -> Segmentation:
    try:
        return Segmentation(name)
    except ValueError:
        known = ", ".join(how.value for how in Segmentation)
        raise InvalidRequestError(f"unknown segmentation {name!r}; use one of {known}") from None


def _identity(
    options: EvalOptions, task: Task, variants: "list[Variant]", prepared: "PreparedModel"
) -> dict[str, Any]:
    """Everything results depend on."""
    return {
        "model": prepared.fingerprint,
        "task": task.name,
        "cases": [asdict(case) for case in task.cases],
        "variants": [
            [variant.name, str(variant.plans.contributors), str(variant.plans.publisher),
             variant.compression.codec.name, variant.compression.selector]
            for variant in variants
        ],
        "shape": [options.segmentation, options.participants, options.prefix,
                  options.max_new_tokens, options.system_prompt, options.network],
        "seed": options.seed,
    }  # fmt: skip


def _show(
    options: EvalOptions,
    task: Task,
    variants: "list[Variant]",
    done: "list[dict[str, CaseScore]]",
    console: Console,
) -> None:
    from fedattn.research.evaluate.plots import draw_results
    from fedattn.research.evaluate.runs import summarize_scores

    summary = {
        variant.name: summarize_scores([scores[variant.name] for scores in done])
        for variant in variants
    }
    Console(highlight=False).print(_table(summary))
    if options.json_path is not None:
        document = {
            "task": task.name,
            "variants": [
                {
                    "name": variant.name,
                    "contributors": str(variant.plans.contributors),
                    "publisher": str(variant.plans.publisher),
                    **summary[variant.name],
                    "results": [asdict(scores[variant.name]) for scores in done],
                }
                for variant in variants
            ],
        }
        options.json_path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.plot_path is not None:
        for path in draw_results(summary, task.name, options.plot_path):
            console.print(f"wrote {path}")


def _table(summary: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("variant")
    columns = (
        ("exact match", "exact_match", ".3f"),
        ("NLL", "nll", ".3f"),
        ("KL", "divergence", ".4f"),
        ("KV bytes", "kv_bytes", ",.0f"),
        ("GFLOP", "gflops", ".1f"),
        ("MiB", "memory_mib", ".0f"),
    )
    for title, _, _ in columns:
        table.add_column(title, justify="right")
    for name, row in summary.items():
        cells = ["-" if row[key] is None else format(row[key], how) for _, key, how in columns]
        table.add_row(name, *cells)
    return table
