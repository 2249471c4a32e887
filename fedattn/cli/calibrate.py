"""`fedattn calibrate`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import TaskID
from rich.table import Table

from fedattn.cli.indexing import read_texts
from fedattn.cli.options import AsJson, Model, Seed, SystemPrompt
from fedattn.cli.outfiles import validate_out
from fedattn.cli.terminal import bars, output, plain_table, progress
from fedattn.core.errors import InvalidRequestError
from fedattn.core.profile import Profile
from fedattn.core.profile_file import write_profile
from fedattn.profiles import save_profile
from fedattn.runtime.extras import require_extras

if TYPE_CHECKING:
    from fedattn.model.engine import Engine

OwnContexts = Callable[[list[int]], Iterator[list[int]]]


def calibrate(
    out: Annotated[Path, typer.Option(help="Profile to write, a .json file.")],
    model: Model = "default",
    texts: Annotated[
        Path | None,
        typer.Option(
            help="Learn from this file or folder too, read as a node reads its text; no labels.",
            metavar="PATH",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer and shorter texts; about a minute.")
    ] = False,
    seed: Seed = 0,
    system_prompt: SystemPrompt = None,
    as_json: AsJson = False,
) -> None:
    """Find which rows of which heads are worth their bytes, and what leaving others out does."""
    require_extras("participant")
    validate_out("--out", out, suffix=".json")
    if texts is not None and not texts.exists():
        raise InvalidRequestError(f"--texts {texts}: no such file or folder")
    from fedattn.model.engine import open_engine
    from fedattn.research.calibrate.run import QUICK, THOROUGH, Calibration

    console = progress()
    engine = open_engine(model, system_prompt, progress=console.print)
    calibration = Calibration(
        engine,
        QUICK if quick else THOROUGH,
        seed=seed,
        own=_own_contexts(texts, engine, console),
    )
    with ProgressReport(console) as report:
        profile = calibration.run(report.tell)
    save_profile(profile, out)
    terminal = output()
    if as_json:
        terminal.write(write_profile(profile))
        return
    terminal.print(_table(profile))
    terminal.print(_summary(profile, out), soft_wrap=True)


def _own_contexts(texts: Path | None, engine: "Engine", console: Console) -> OwnContexts:
    """What is learned from a user's own texts; nothing of them stays on disk."""
    if texts is None:
        return lambda _lengths: iter(())
    from fedattn.passages.store import PassageStore
    from fedattn.research.calibrate.texts import own_contexts

    store = PassageStore(texts, None)
    read_texts(store, texts, console)
    return lambda lengths: own_contexts(store, engine.tokenizer.context, lengths)


class ProgressReport:
    """Shows stages as bars with an estimate of the time left."""

    def __init__(self, console: Console) -> None:
        self._bars = bars(console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "ProgressReport":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def tell(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)


def _table(profile: Profile) -> Table:
    lengths = [str(one["length"]) for one in profile.origin["plans"]]
    columns = ["bf16 / bytes", *(f"KL at {length}" for length in lengths), "NLL"]
    table = plain_table("rows", "codec", *columns, right=("rows", *columns))
    by_length = profile.origin["lengths"]
    for index, (point, measured) in enumerate(zip(profile.points, by_length, strict=True)):
        table.add_row(
            f"{point.keep_ratio:g}",
            point.codec,
            f"{point.fewer_bytes:.1f}",
            *(f"{measured[length]['divergence']:.4f}" for length in lengths),
            f"{point.nll_change:+.3f}",
            style="bold" if index == profile.default else "",
        )
    return table


def _summary(profile: Profile, out: Path) -> str:
    """What `auto` is from now on."""
    chosen = profile.points[profile.default]
    return (
        f"auto: keep ratio {chosen.keep_ratio:g}, {chosen.codec}, 1/{chosen.fewer_bytes:.0f} of "
        f"the bytes, KL {chosen.divergence:.3f}\nwrote {out}; use it as --plan {out}, or give it "
        f"to a node: --profile {out}"
    )
