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
from fedattn.cli.tasks import TaskOptions, read_task
from fedattn.cli.terminal import PlainConsole, progress
from fedattn.core.codecs import DEFAULT_CODEC
from fedattn.core.sampling import MAX_NEW_TOKENS
from fedattn.core.share import Share
from fedattn.core.spans import PrefixMode
from fedattn.research.tasks.segmentation import Segmentation
from fedattn.research.tasks.worlds import CountTokens
from fedattn.runtime.extras import require_extras

if TYPE_CHECKING:
    from fedattn.cli.scores import Scores


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
    length: Annotated[
        list[int] | None,
        typer.Option(help="Tokens a context of retrieval; may be repeated; default: short ones."),
    ] = None,
    questions: Annotated[int, typer.Option(help="About the same contexts, with --length.")] = 10,
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
    baseline: Annotated[
        str, typer.Option(help="Variant that the others are set beside, as the table names it.")
    ] = "centralised",
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
    """Score plans, codecs and ratios on a task, in pairs with centralised or another variant."""
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
    wanted = TaskOptions(
        name=task,
        cases=cases,
        num_cases=num_cases,
        num_contexts=num_contexts,
        num_shots=shots,
        seed=seed,
        lengths=tuple(length or ()),
        num_questions=questions,
    )
    console = progress()
    chosen = read_task(wanted, lambda: _open_counter(model, console))
    from fedattn.cli.evaluation import Evaluation
    from fedattn.cli.variants import Grid, check_baseline, make_variants
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
    prepared = prepare_model(model, progress=console.print)
    variants = make_variants(grid, prepared)
    check_baseline(baseline, variants)
    evaluation = Evaluation(
        task=chosen,
        model=model,
        prepared=prepared,
        variants=variants,
        baseline=baseline,
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


def _open_counter(model: str, console: PlainConsole) -> CountTokens:
    from fedattn.model.loading import load_tokenizer
    from fedattn.model.prepare import prepare_model
    from fedattn.model.prompt import PromptTokenizer

    tokenizer = PromptTokenizer(load_tokenizer(prepare_model(model, progress=console.print)))
    return lambda text: len(tokenizer.plain(text))


def _report(
    scores: "Scores", json_path: Path | None, plot_path: Path | None, console: PlainConsole
) -> None:
    report = report_console(json_path)
    report.print(scores.means())
    report.print(f"\n{scores.caption()}:")
    report.print(scores.pairs())
    if json_path is not None:
        write_out("--json", json_path, json.dumps(scores.to_json(), indent=1) + "\n")
    if plot_path is not None:
        from fedattn.research.evaluate.plots import draw_results

        for path in draw_results(scores.summary(), scores.task.name, plot_path):
            console.print(f"wrote {path}")
