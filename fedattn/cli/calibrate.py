"""`fedattn calibrate`."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fedattn.core.errors import InvalidRequestError
from fedattn.core.profile import Profile, write_profile


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateOptions:
    """Options of the command, as given."""

    model: str
    out: Path
    cases: Path | None
    layers: int
    objective: str
    search: str
    seed: int
    num_search: int
    num_held_out: int
    budget_bytes: int | None
    system_prompt: str | None


def calibrate_command(options: CalibrateOptions) -> None:
    """Search for sync plans, measure them, write a profile.

    Raises:
        FedAttnError: an option, the model or the cases do not fit.
    """
    if not options.out.name.endswith(".json") or not options.out.absolute().parent.is_dir():
        raise InvalidRequestError(
            f"--out {options.out}: expected a .json file in a folder that exists"
        )
    from fedattn.model.loading import fastest_dtype, load_model, load_tokenizer
    from fedattn.model.prepare import prepare_model
    from fedattn.model.prompt import DEFAULT_SYSTEM_PROMPT, PromptTokenizer
    from fedattn.research.calibrate.evaluator import read_objective
    from fedattn.research.calibrate.run import (
        Calibration,
        CalibrationSettings,
        generated_split,
        split_cases,
    )
    from fedattn.research.tasks.cases import read_cases

    settings = CalibrationSettings(
        fewest=options.layers,
        objective=read_objective(options.objective),
        strategy=options.search,
        seed=options.seed,
        num_search=options.num_search,
        num_held_out=options.num_held_out,
        budget_bytes=options.budget_bytes,
    )
    given = read_cases(options.cases) if options.cases else None
    split = split_cases(given, settings.seed) if given else generated_split(settings)
    console = Console(stderr=True, highlight=False)
    prepared = prepare_model(options.model, progress=console.print)
    prompt = options.system_prompt or DEFAULT_SYSTEM_PROMPT
    calibration = Calibration(
        load_model(prepared),
        load_model(prepared, fastest_dtype()),
        PromptTokenizer(load_tokenizer(prepared), prompt),
        split,
        settings,
    )
    log_path = options.out.with_suffix(".scores.jsonl")
    console.print(f"scores go to {log_path}; the same command goes on where it was stopped")
    with ProgressReport(console) as progress:
        profile = calibration.run(log_path, progress.tell)
    _write(options.out, write_profile(profile))
    log_path.unlink()
    Console(highlight=False).print(_table(profile))
    console.print(f"wrote {options.out}; use it as --plan {options.out}")


class ProgressReport:
    """Shows stages as bars with an estimate of the time left, and news above them."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
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
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("layers", "KL", "NLL", "exact match", "publisher", "contributors"):
        table.add_column(title, justify="left" if title[0] in "pc" else "right")
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
