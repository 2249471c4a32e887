"""`fedattn calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import TaskID
from rich.table import Table

from fedattn.cli.options import AsJson, Cases, Model, Seed, SystemPrompt
from fedattn.cli.outfiles import validate_out
from fedattn.cli.terminal import bars, output, plain_table, progress
from fedattn.core.profile import Profile, write_profile
from fedattn.runtime.extras import require_extras

if TYPE_CHECKING:
    from fedattn.research.calibrate.run import Calibration


def calibrate(
    out: Annotated[Path, typer.Option(help="Profile to write, a .json file.")],
    model: Model = "default",
    cases: Cases = None,
    layers: Annotated[int, typer.Option(help="Sync layers of the smallest plan.")] = 4,
    objective: Annotated[
        str, typer.Option(help="kl: stay near centralised; nll: of the given answers.")
    ] = "kl",
    search: Annotated[
        str, typer.Option(help="elimination, exchange, ranking or addition.")
    ] = "elimination",
    seed: Seed = 0,
    search_cases: Annotated[int, typer.Option(help="Generated cases to search with.")] = 96,
    held_out_cases: Annotated[int, typer.Option(help="Generated cases to measure with.")] = 120,
    budget_bytes: Annotated[
        int | None,
        typer.Option(help="Most KV bytes of a query, instead of --layers; codec auto."),
    ] = None,
    system_prompt: SystemPrompt = None,
    as_json: AsJson = False,
) -> None:
    """Find at which blocks nodes should synchronise, from few blocks to all; write a profile."""
    require_extras("participant")
    validate_out("--out", out, suffix=".json")
    from fedattn.model.engine import open_engine
    from fedattn.model.loading import fastest_dtype, load_model
    from fedattn.model.prepare import prepare_model
    from fedattn.research.calibrate.evaluator import read_objective
    from fedattn.research.calibrate.run import (
        Calibration,
        CalibrationSettings,
        generated_split,
        split_cases,
    )
    from fedattn.research.tasks.cases import read_cases

    settings = CalibrationSettings(
        fewest=layers,
        objective=read_objective(objective),
        strategy=search,
        seed=seed,
        num_search=search_cases,
        num_held_out=held_out_cases,
        budget_bytes=budget_bytes,
    )
    split = split_cases(read_cases(cases), seed) if cases else generated_split(settings)
    console = progress()
    prepared = prepare_model(model, progress=console.print)
    engine = open_engine(prepared, system_prompt)
    fast = load_model(prepared, fastest_dtype())
    calibration = Calibration(engine.model, fast, engine.tokenizer, split, settings)
    profile = _run(calibration, out, console)
    terminal = output()
    if as_json:
        terminal.write(write_profile(profile))
        return
    terminal.print(_table(profile))
    terminal.print(f"wrote {out}; use it as --plan {out}", soft_wrap=True)


def _run(calibration: "Calibration", out: Path, console: Console) -> Profile:
    """Search, showing how far it is, and write the profile; what was scored outlives a stop."""
    log_path = out.with_suffix(".scores.jsonl")
    console.print(
        f"scores go to {log_path}; the same command goes on where it was stopped", soft_wrap=True
    )
    with ProgressReport(console) as report:
        profile = calibration.run(log_path, report.tell)
    _write(out, write_profile(profile))
    log_path.unlink()
    return profile


class ProgressReport:
    """Shows stages as bars with an estimate of the time left, and news above them."""

    def __init__(self, console: Console) -> None:
        self._bars = bars(console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "ProgressReport":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def tell(self, stage: str, done: int, total: int, news: str = "") -> None:
        """Show how far a stage is."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)
        if news:
            self._bars.console.print(news, soft_wrap=True)


def _write(path: Path, text: str) -> None:
    """Replace a file in one step."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _table(profile: Profile) -> Table:
    table = plain_table(right=("layers", "KL", "NLL", "exact match"))
    for title in ("publisher", "contributors"):
        table.add_column(title)
    for index, point in enumerate(profile.points):
        table.add_row(
            str(point.plans.num_travelling),
            f"{point.divergence:.4f}",
            f"{point.nll:.3f}",
            f"{point.exact_match:.3f}",
            str(point.plans.publisher),
            str(point.plans.contributors),
            style="bold" if index == profile.default else "",
        )
    return table
