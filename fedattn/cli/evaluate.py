"""`fedattn eval`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedattn.cli.options import (
    AUTO,
    JsonOut,
    Model,
    NumCases,
    NumContexts,
    PlotOut,
    Prefix,
    Seed,
    Selector,
    SystemPrompt,
)
from fedattn.cli.outfiles import report_console, validate_out, write_out
from fedattn.cli.terminal import PlainConsole, progress
from fedattn.core.codecs import DEFAULT_CODEC
from fedattn.core.errors import InvalidRequestError
from fedattn.core.sampling import MAX_NEW_TOKENS
from fedattn.core.share import Share
from fedattn.core.spans import PrefixMode
from fedattn.research.tasks.cases import read_cases
from fedattn.research.tasks.gsm8k import gsm8k_task
from fedattn.research.tasks.labels import labels_task
from fedattn.research.tasks.retrieval import generate_cases
from fedattn.research.tasks.segmentation import Segmentation
from fedattn.research.tasks.task import Task
from fedattn.runtime.extras import require_extras

if TYPE_CHECKING:
    from fedattn.cli.scores import Scores

TASKS = ("retrieval", "labels", "gsm8k", "notes")


def evaluate(
    task: Annotated[str, typer.Argument(help="retrieval, labels, gsm8k or notes.")] = "retrieval",
    model: Model = "default",
    cases: Annotated[
        Path | None,
        typer.Option(
            help="JSONL of contexts, question, answer; gsm8k: question, answer; notes: a folder."
        ),
    ] = None,
    num_cases: NumCases = 60,
    num_contexts: NumContexts = 3,
    shots: Annotated[int, typer.Option(help="Exemplars of labels and gsm8k.")] = 8,
    segmentation: Annotated[
        Segmentation | None, typer.Option(help="Default: a context a contributor.")
    ] = None,
    participants: Annotated[int, typer.Option("-n", min=2, help="With --segmentation.")] = 4,
    plan: Annotated[
        list[str] | None, typer.Option(help="Of the contributors; may be repeated.")
    ] = None,
    publisher_plan: Annotated[
        list[str] | None, typer.Option(help="Of the publisher; default: as --plan.")
    ] = None,
    codec: Annotated[
        list[str] | None, typer.Option(help="May be repeated; default: as the profile says.")
    ] = None,
    keep_ratio: Annotated[
        list[float] | None, typer.Option(help="May be repeated; default: as the profile says.")
    ] = None,
    input_keep_ratio: Annotated[list[float] | None, typer.Option(help="May be repeated.")] = None,
    responder: Annotated[
        list[int] | None,
        typer.Option(help="Who answers, 1 is first; may be repeated; default: the publisher."),
    ] = None,
    selector: Selector = AUTO,
    seed: Seed = 0,
    prefix: Prefix = PrefixMode.PUBLIC,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_NEW_TOKENS, help="Most tokens; default: the task's."),
    ] = None,
    system_prompt: SystemPrompt = None,
    network: Annotated[
        bool, typer.Option("--network", help="A process a node, through the gateway.")
    ] = False,
    share: Annotated[
        list[Share] | None, typer.Option(help="Of notes; may be repeated; default question.")
    ] = None,
    context_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of notes: most tokens of all texts together.")
    ] = None,
    whole: Annotated[bool, typer.Option(help="Of notes: whole texts too, for minutes.")] = True,
    json_path: JsonOut = None,
    plot_path: PlotOut = None,
) -> None:
    """Score plans, codecs and ratios on a task, beside centralised and the publisher alone."""
    require_extras(
        "participant", *(["gateway"] if network else []), *(["plots"] if plot_path else [])
    )
    validate_out("--json", json_path)
    validate_out("--plot", plot_path)
    if task == "notes":
        from fedattn.cli.notes import NotesOptions, evaluate_notes

        options = NotesOptions(
            model=model,
            folder=cases,
            plans=plan or ["auto"],
            codec=(codec or [DEFAULT_CODEC])[0],
            shares=share or [Share.QUESTION],
            context_tokens=context_tokens,
            max_new_tokens=max_new_tokens,
            with_whole=whole,
        )
        evaluate_notes(options, json_path, plot_path)
        return
    chosen = read_task(
        task, cases, num_cases, num_contexts=num_contexts, num_shots=shots, seed=seed
    )
    from fedattn.cli.evaluation import Evaluation
    from fedattn.cli.variants import Grid, make_variants
    from fedattn.model.prepare import prepare_model
    from fedattn.research.evaluate.runs import PromptSegmentation

    grid = Grid(
        plans=plan or ["auto"],
        publisher_plans=publisher_plan or [None],
        codecs=codec or [DEFAULT_CODEC],
        keep_ratios=keep_ratio or [None],
        input_keep_ratios=input_keep_ratio or [1.0],
        responders=responder or [None],
        selector=selector,
        seed=seed,
    )
    console = progress()
    prepared = prepare_model(model, progress=console.print)
    evaluation = Evaluation(
        task=chosen,
        model=model,
        prepared=prepared,
        variants=make_variants(grid, prepared),
        prompts=PromptSegmentation(
            segmentation=segmentation,
            num_participants=participants,
            prefix=prefix,
            max_new_tokens=max_new_tokens,
        ),
        system_prompt=system_prompt,
        network=network,
        seed=seed,
    )
    scores = evaluation.run(json_path, console)
    _report(scores, json_path, plot_path, console)


def _report(
    scores: "Scores", json_path: Path | None, plot_path: Path | None, console: PlainConsole
) -> None:
    report_console(json_path).print(scores.table())
    if json_path is not None:
        write_out("--json", json_path, json.dumps(scores.to_json(), indent=1) + "\n")
    if plot_path is not None:
        from fedattn.research.evaluate.plots import draw_results

        for path in draw_results(scores.summary(), scores.task, plot_path):
            console.print(f"wrote {path}")


def read_task(
    name: str,
    cases: Path | None,
    num_cases: int,
    *,
    num_contexts: int,
    num_shots: int,
    seed: int,
) -> Task:
    """The task of that name, with its cases.

    Raises:
        InvalidRequestError: it is unknown, or its cases cannot be read.
    """
    match name:
        case "retrieval":
            chosen = (
                read_cases(cases)[:num_cases]
                if cases
                else generate_cases(num_cases, seed=seed, num_contexts=num_contexts)
            )
            return Task(name="retrieval", cases=tuple(chosen))
        case "labels":
            return labels_task(num_cases, seed=seed, num_exemplars=num_shots)
        case "gsm8k":
            return gsm8k_task(cases, num_cases, num_shots=num_shots)
        case unknown:
            raise InvalidRequestError(f"unknown task {unknown!r}; use one of {', '.join(TASKS)}")
