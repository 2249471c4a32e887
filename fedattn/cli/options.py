"""Options that several commands share: each stands here once, with its type and its help."""

from pathlib import Path
from typing import Annotated

import typer

from fedattn.core.asked import QUERY_CODEC_NAMES
from fedattn.core.codecs import CODEC_NAMES, DEFAULT_CODEC, codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.limits import MAX_SEED
from fedattn.core.profile import CompressionWish
from fedattn.core.request import Exchange
from fedattn.core.sampling import MAX_NEW_TOKENS
from fedattn.core.selection import SELECTOR_NAMES, check_selector
from fedattn.core.spans import PrefixMode
from fedattn.research.tasks.retrieval import MAX_CONTEXTS

Gateway = Annotated[
    str, typer.Option(envvar="FEDATTN_GATEWAY", help="Of the gateway: HOST:PORT, or a URL.")
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="FEDATTN_API_KEY",
        show_envvar=True,
        help="Who asks: an API key, or a token. Others see arguments: use the variable.",
    ),
]
Authority = Annotated[
    Path | None,
    typer.Option("--ca", help="PEM file of the authority of an https gateway.", metavar="FILE"),
]

Model = Annotated[str, typer.Option(help="As for `model prepare`.")]
SystemPrompt = Annotated[str | None, typer.Option(help="Public system prompt.")]

Plan = Annotated[
    str,
    typer.Option(
        help="Sync plan of the contributors, such as auto, auto@1/20, 7,9,10-12 or none; all and "
        "uniform:4 include block 0, which owners of nodes have to allow (lowest_block = 0).",
    ),
]
PublisherPlan = Annotated[
    str | None, typer.Option(help="Sync plan of the publisher; default: as --plan.")
]
Independent = Annotated[
    bool,
    typer.Option(
        "--independent",
        help="Contributors follow the public prefix alone; --plan is the publisher's.",
    ),
]
Exchanging = Annotated[
    Exchange,
    typer.Option(
        "--exchange",
        help="rows: contributors send their rows; ask: rows stay, queries go to them; auto: as "
        "their owners' policies say.",
    ),
]
AskedPlan = Annotated[
    str | None, typer.Option(help="Blocks to ask at where rows stay; default: as the profile says.")
]
QueryCodec = Annotated[
    str, typer.Option(help=f"How such queries are written: {', '.join(QUERY_CODEC_NAMES)}.")
]
Prefix = Annotated[PrefixMode, typer.Option(help="public, or first as in the paper.")]

AUTO = "auto"
"""Leaves a choice to the profile of the model."""
Codec = Annotated[
    str,
    typer.Option(help=f"How KV rows are written: {', '.join(CODEC_NAMES)} (as the profile says)."),
]
KeepRatio = Annotated[
    float | None,
    typer.Option(help="Share of the rows that travel; default: as the profile says."),
]
Selector = Annotated[
    str,
    typer.Option(
        help=f"Which rows travel: {', '.join(SELECTOR_NAMES)}, auto (learned with a profile)."
    ),
]
KeepEnds = Annotated[int, typer.Option(help="Rows at each span's ends that always travel.")]
InputKeepRatio = Annotated[
    float,
    typer.Option(help="Share of the contributors' tokens computed at all; loses information."),
]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of all random draws.")]

MaxNewTokens = Annotated[
    int, typer.Option(min=1, max=MAX_NEW_TOKENS, help="Most tokens to decode.")
]

Cases = Annotated[
    Path | None, typer.Option(help="JSONL of contexts, question, answer; default: generated.")
]
NumCases = Annotated[int, typer.Option(min=1, help="Most cases to run.")]
NumContexts = Annotated[
    int, typer.Option(min=2, max=MAX_CONTEXTS, help="Contexts of a generated case.")
]
JsonOut = Annotated[
    Path | None,
    typer.Option(
        "--json",
        help="Write results here; - prints them, and nothing else.",
        metavar="FILE",
        allow_dash=True,
    ),
]
PlotOut = Annotated[
    Path | None,
    typer.Option("--plot", help="Draw a picture here, as PNG and SVG.", metavar="FILE"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON only.")]


def read_wish(
    codec: str = DEFAULT_CODEC,
    keep_ratio: float | None = None,
    input_keep_ratio: float = 1.0,
    *,
    selector: str = AUTO,
    keep_ends: int = 0,
    seed: int = 0,
) -> CompressionWish:
    """What the compression options of a command say; None and `auto` leave it to the profile.

    Raises:
        InvalidRequestError: one of them is out of its range, or names nothing known.
    """
    if selector != AUTO:
        check_selector(selector)
    settings = Compression(
        keep_ratio=1.0 if keep_ratio is None else keep_ratio,
        keep_ends=keep_ends,
        input_keep_ratio=input_keep_ratio,
        seed=seed,
    )
    return CompressionWish(
        codec=None if codec == DEFAULT_CODEC else codec_by_name(codec),
        keep_ratio=keep_ratio,
        selector=None if selector == AUTO else selector,
        settings=settings,
    )
