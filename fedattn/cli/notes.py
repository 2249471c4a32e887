"""`fedattn eval notes`: questions over realistic notes, and what comes of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from fedattn.cli.options import read_wish
from fedattn.cli.outfiles import report_console, write_out
from fedattn.cli.plans import choose
from fedattn.cli.terminal import plain_table, progress, tracked
from fedattn.core.errors import InvalidRequestError
from fedattn.core.profile import context_tokens_of
from fedattn.core.sampling import SamplingParams
from fedattn.core.share import Share
from fedattn.model.engine import open_engine
from fedattn.profiles import shipped_profile
from fedattn.research.notes.cases import read_notes
from fedattn.research.notes.run import NotesRuns, NotesScore
from fedattn.research.notes.scores import paired_difference, summarize
from fedattn.research.notes.variants import ONE_MODEL_CHOSEN, NotesGrid, make_notes_variants

DEFAULT_FOLDER = Path("benchmarks/notes")
MAX_NEW_TOKENS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesOptions:
    """What the command line says; None is the default."""

    model: str
    folder: Path | None
    plans: Sequence[str]
    codec: str
    shares: Sequence[Share]
    context_tokens: int | None
    max_new_tokens: int | None
    with_whole: bool


def evaluate_notes(options: NotesOptions, json_path: Path | None, plot_path: Path | None) -> None:
    """Ask every question under every variant; print, and write if asked to.

    Raises:
        InvalidRequestError: there are no notes.
        FedAttnError: the model cannot be opened, or a plan does not fit it.
    """
    folder = options.folder or DEFAULT_FOLDER
    if not folder.is_dir():
        raise InvalidRequestError(
            f"no notes in {folder}: run this in a clone of the repository, or give --cases FOLDER"
        )
    cases = read_notes(folder)
    console = progress()
    engine = open_engine(options.model, progress=console.print)
    num_layers, fingerprint = engine.model.shape.num_layers, engine.model.fingerprint
    profile = shipped_profile(fingerprint)
    grid = NotesGrid(
        resolved={
            name: choose(name, None, num_layers, fingerprint, read_wish(options.codec))
            for name in options.plans
        },
        shares=options.shares,
        context_tokens=options.context_tokens or context_tokens_of(profile),
        num_layers=num_layers,
        with_whole=options.with_whole,
        sampling=SamplingParams(max_new_tokens=options.max_new_tokens or MAX_NEW_TOKENS),
    )
    runs = NotesRuns(engine)
    scores: dict[str, list[NotesScore]] = {}
    for variant in make_notes_variants(grid):
        running = tracked(runs.run(cases, variant), variant.name, len(cases), console)
        scores[variant.name] = own = list(running)
        row = summarize(own)
        console.print(f"{variant.name}: {row['right']} of {row['questions']} right")
    report_console(json_path).print(_table(scores))
    if json_path is not None:
        write_out(
            "--json", json_path, json.dumps(_document(scores, grid, engine.name), indent=1) + "\n"
        )
    if plot_path is not None:
        from fedattn.research.notes.plots import draw_notes

        summaries = {name: summarize(own) for name, own in scores.items()}
        for path in draw_notes(summaries, engine.name, plot_path):
            console.print(f"wrote {path}")


def _document(scores: dict[str, list[NotesScore]], grid: NotesGrid, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "context_tokens": grid.context_tokens,
        "codec": {name: one.compression.codec.name for name, one in grid.resolved.items()},
        "variants": [
            {
                "name": name,
                **summarize(own),
                "minus_one_model": paired_difference(own, scores[ONE_MODEL_CHOSEN]),
                "answers": [asdict(score) for score in own],
            }
            for name, own in scores.items()
        ],
    }


def _table(scores: dict[str, list[NotesScore]]) -> Table:
    table = plain_table(
        "variant",
        right=(
            "right", "against one model", "answer there", "absent said", "tokens", "passages",
            "KV KiB", "prefill s", "decode s",
        ),
    )  # fmt: skip
    for name, own in scores.items():
        row = summarize(own)
        mean, half = paired_difference(own, scores[ONE_MODEL_CHOSEN])
        table.add_row(
            name,
            f"{row['right']} of {row['questions']}",
            f"{100 * mean:+.0f} ± {100 * half:.0f} %",
            f"{row['there']}",
            f"{row['absent_said']} of {row['absent']}",
            f"{row['tokens']}",
            f"{row['passages']:.1f}",
            f"{row['kv_bytes'] / 1024:.0f}",
            "-" if row["prefill_s"] is None else f"{row['prefill_s']:.2f}",
            f"{row['decode_s']:.2f}",
        )
    return table
