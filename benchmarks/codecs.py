"""Codecs and row selection on the embedded model: bytes, errors, speed, quality of answers.

    python -m benchmarks.codecs [--cases 48] [--seed 1000] [--json FILE] [--skip-answers]
    python -m benchmarks.codecs --draw FILE.json PICTURE.svg

Two tables. The first encodes the model's real KV at every layer with every codec. The second
answers generated retrieval questions over the in-process exchange, for every codec at keep ratio 1
and every selector at keep ratios 0.7, 0.5 and 0.3, beside centralised and the publisher alone.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fedattn.core.codecs import CODECS, Codec, codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.frame_headers import FrameSpec
from fedattn.core.frames import decode_frame, encode_frame
from fedattn.core.plans import PlanSpec, shared_plan
from fedattn.core.routing import Route
from fedattn.core.selection import SELECTOR_NAMES
from fedattn.core.spans import Span, build_layout
from fedattn.core.types import FloatArray, HeadRows, KvRows, KvShape, Queries
from fedattn.model.engine import open_engine
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import Prefiller
from fedattn.model.prompt import PromptTokenizer
from fedattn.research.simulate import SimulationSettings, Simulator
from fedattn.research.tasks.retrieval import generate_cases

EVERY_BUT_0 = "1-29"  # of the embedded model
NUM_LAYERS = 30
KEEP_RATIOS, ROWS_CODEC = (0.7, 0.5, 0.3), "entropy-medium"
SPAN_TOKENS = 512
REPEATS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One codec at one layer. Errors are relative to the norm of what is compared."""

    codec: str
    layer: int
    bytes_ratio: float
    key_error: float
    value_error: float
    attention_error: float
    encode_mb_s: float
    decode_mb_s: float


class Recorder:
    """A `KvExchange` of a participant alone that keeps what would be sent."""

    def __init__(self, shape: KvShape) -> None:
        every = frozenset(range(shape.num_layers))
        self.route = Route(uploads=every, receives=frozenset(), senders=())
        self.sent: dict[int, tuple[KvRows, FloatArray]] = {}

    def send(self, layer: int, rows: KvRows, queries: Queries) -> None:
        self.sent[layer] = (rows, queries())

    def receive(self, layer: int) -> list[HeadRows]:  # noqa: ARG002 - nobody is before it
        return []


def record_rows(model: LoadedModel, tokenizer: PromptTokenizer) -> Recorder:
    """KV and queries of one span of generated sentences, at every layer."""
    texts = [text for case in generate_cases(60, seed=7) for text in case.contexts]
    tokens = [token for text in texts for token in tokenizer.context(text)][:SPAN_TOKENS]
    prefix = tokenizer.prefix()
    layout = build_layout(
        num_layers=model.shape.num_layers,
        prefix_len=len(prefix),
        contributors=[("node", len(tokens))],
        publisher=("publisher", 1),
        plans=shared_plan(range(model.shape.num_layers)),
    )
    recorder = Recorder(model.shape)
    Prefiller(model).contribute(layout.members[0], prefix, tokens, recorder)
    return recorder


def measure_layers(model: LoadedModel, recorder: Recorder) -> Iterator[LayerRow]:
    for codec in CODECS:
        for layer, (rows, queries) in recorder.sent.items():
            yield measure_layer(model, codec, layer, rows, queries)


def measure_layer(
    model: LoadedModel, codec: Codec, layer: int, rows: KvRows, queries: FloatArray
) -> LayerRow:
    span = Span(int(rows.positions[0]), int(rows.positions[-1]) + 1)
    counts = (rows.num_rows,) * len(rows.keys)
    rules = FrameSpec(sender="node", shape=model.shape, codec=codec, span=span, counts=counts)
    bf16_bytes = model.shape.values_per_row * rows.num_rows * 2
    encode_times, decode_times = [], []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        frame = encode_frame(HeadRows.of(rows), layer, codec, span, model.rotaries[layer])
        middle = time.perf_counter()
        decoded = decode_frame(frame, rules, model.rotaries[layer])
        decode_times.append(time.perf_counter() - middle)
        encode_times.append(middle - begun)
    keys, values = (one.reshape(rows.keys.shape) for one in (decoded.keys, decoded.values))
    exact = attention_output(queries, rows.keys, rows.values)
    changed = attention_output(queries, keys, values)
    return LayerRow(
        codec=codec.name,
        layer=layer,
        bytes_ratio=bf16_bytes / len(frame),
        key_error=relative_error(keys, rows.keys),
        value_error=relative_error(values, rows.values),
        attention_error=relative_error(changed, exact),
        encode_mb_s=bf16_bytes / float(np.median(encode_times)) / 1e6,
        decode_mb_s=bf16_bytes / float(np.median(decode_times)) / 1e6,
    )


def attention_output(queries: FloatArray, keys: FloatArray, values: FloatArray) -> FloatArray:
    """Causal attention over the span itself, [Hq, T, D]."""
    output = torch.nn.functional.scaled_dot_product_attention(
        torch.tensor(queries),
        torch.tensor(keys),
        torch.tensor(values),
        is_causal=True,
        scale=1.0,  # the queries come scaled
        enable_gqa=True,
    )
    array: FloatArray = output.numpy()
    return array


def relative_error(changed: FloatArray, exact: FloatArray) -> float:
    return float(np.linalg.norm(changed - exact) / np.linalg.norm(exact))


def layer_table(rows: list[LayerRow]) -> Table:
    table = Table(title=f"KV of one span of {SPAN_TOKENS} tokens, every layer", box=None)
    titles = ("codec", "layer", "bf16 / bytes", "K error", "V error", "attention error")
    for title in (*titles, "encode MB/s", "decode MB/s"):
        table.add_column(title, justify="left" if title == "codec" else "right")
    for codec in CODECS:
        own = [row for row in rows if row.codec == codec.name]
        for row in own:
            table.add_row(row.codec, str(row.layer), *_cells(row))
        table.add_row(codec.name, "median", *_cells(_median(own)), style="bold")
    return table


def _cells(row: LayerRow) -> list[str]:
    return [
        f"{row.bytes_ratio:.2f}",
        f"{row.key_error:.4f}",
        f"{row.value_error:.4f}",
        f"{row.attention_error:.4f}",
        f"{row.encode_mb_s:.0f}",
        f"{row.decode_mb_s:.0f}",
    ]


def _median(rows: list[LayerRow]) -> LayerRow:
    names = ("bytes_ratio", "key_error", "value_error", "attention_error")
    speeds = ("encode_mb_s", "decode_mb_s")
    values = {
        name: float(np.median([getattr(row, name) for row in rows])) for name in (*names, *speeds)
    }
    return LayerRow(codec=rows[0].codec, layer=-1, **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRow:
    """One way to compress, over all questions.

    Attributes:
        nll: mean negative log-likelihood of the given answer, nats a token.
        nll_change: mean difference to bf16 with every row.
        nll_change_error: its standard error.
        exact_match: questions whose answer occurs in what was decoded.
        bytes_ratio: bf16 bytes with every row / bytes, at the same sync layers.
    """

    codec: str
    selector: str
    keep_ratio: float
    plan: str
    nll: float
    nll_change: float
    nll_change_error: float
    exact_match: int
    num_questions: int
    bytes_ratio: float


def grid() -> Iterator[tuple[str, Compression]]:
    """Plan and compression of every row of the second table; the first is the reference."""
    yield EVERY_BUT_0, Compression(codec=codec_by_name("bf16"))
    yield "none", Compression(codec=codec_by_name("bf16"))
    yield "all", Compression(codec=codec_by_name("fp32"))
    for codec in CODECS:
        if codec.name not in {"fp32", "fp16", "bf16"}:
            yield EVERY_BUT_0, Compression(codec=codec)
    for selector in SELECTOR_NAMES:
        for ratio in KEEP_RATIOS:
            yield (
                EVERY_BUT_0,
                Compression(codec=codec_by_name("bf16"), selector=selector, keep_ratio=ratio),
            )
    for ratio in KEEP_RATIOS:
        yield EVERY_BUT_0, Compression(codec=codec_by_name(ROWS_CODEC), keep_ratio=ratio)


def measure_answers(
    simulator: Simulator, num_cases: int, seed: int, console: Console
) -> Iterator[AnswerRow]:
    cases = generate_cases(num_cases, seed=seed)
    reference_nll: list[float] = []
    reference_bytes = 0
    for plan, compression in grid():
        settings = SimulationSettings(
            plans=shared_plan(PlanSpec(plan).resolve(NUM_LAYERS).layers),
            compression=compression,
            max_new_tokens=16,
        )
        name = f"{plan} {compression.codec.name} {compression.selector} {compression.keep_ratio}"
        running = simulator.run(cases, settings)
        results = list(track(running, name, total=len(cases), console=console, transient=True))
        nlls = [result.nll for result in results]
        num_bytes = sum(result.kv_bytes for result in results)
        reference_nll = reference_nll or nlls
        reference_bytes = reference_bytes or num_bytes
        changes = np.subtract(nlls, reference_nll)
        yield AnswerRow(
            codec=compression.codec.name,
            selector=compression.selector if compression.keep_ratio < 1 else "",
            keep_ratio=compression.keep_ratio,
            plan=plan,
            nll=float(np.mean(nlls)),
            nll_change=float(changes.mean()),
            nll_change_error=float(changes.std() / math.sqrt(len(cases))),
            exact_match=sum(result.match for result in results),
            num_questions=len(cases),
            bytes_ratio=reference_bytes / num_bytes if num_bytes else math.inf,
        )


ANSWER_COLUMNS = (
    ("plan", 6), ("codec", 16), ("selector", 16), ("keep", 5), ("bf16/bytes", 10), ("NLL", 7),
    ("change", 16), ("exact match", 11),
)  # fmt: skip


def answer_line(row: AnswerRow) -> str:
    cells = (
        row.plan,
        row.codec,
        row.selector or "-",
        f"{row.keep_ratio:g}",
        f"{row.bytes_ratio:.2f}",
        f"{row.nll:.3f}",
        f"{row.nll_change:+.3f} ± {row.nll_change_error:.3f}",
        f"{row.exact_match}/{row.num_questions}",
    )
    widths = (width for _, width in ANSWER_COLUMNS)
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))


def draw(result: dict[str, Any], picture: Path) -> None:
    """Change of NLL against bytes, one line a selector."""
    from matplotlib import pyplot as plt  # noqa: PLC0415 - only here

    rows = [
        row for row in result["answers"] if row["plan"] == EVERY_BUT_0 and row["bytes_ratio"] > 1
    ]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for selector in SELECTOR_NAMES:
        line = [row for row in rows if row["selector"] == selector and row["codec"] == "bf16"]
        ratios = [row["bytes_ratio"] for row in line]
        axes.plot(ratios, [row["nll_change"] for row in line], "o-", label=f"bf16, {selector}")
    coded = [row for row in rows if row["codec"] != "bf16"]
    for row in coded:
        kept = "" if row["keep_ratio"] == 1 else f", {row['keep_ratio']:.0%}"
        point = (row["bytes_ratio"], row["nll_change"])
        axes.plot(*point, "ks")
        axes.annotate(row["codec"] + kept, point, xytext=(5, 4), textcoords="offset points")
    axes.set(xscale="log", xlabel="bf16 bytes / bytes", ylabel="change of answer NLL, nats a token")
    axes.set_xticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
    axes.axhline(0.05, color="gray", linestyle=":")
    axes.set_yscale("symlog", linthresh=0.1)
    axes.legend(fontsize="small")
    figure.savefig(picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cases", type=int, default=48, help="questions of the second table")
    parser.add_argument("--seed", type=int, default=1000, help="of the generated questions")
    parser.add_argument("--json", type=Path, help="write both tables here")
    parser.add_argument("--skip-answers", action="store_true", help="the first table only")
    parser.add_argument("--draw", nargs=2, type=Path, help="draw a JSON file, measure nothing")
    options = parser.parse_args()
    if options.draw:
        draw(json.loads(options.draw[0].read_text(encoding="utf-8")), options.draw[1])
        return
    torch.set_num_threads(1)
    console = Console(width=110, highlight=False)
    engine = open_engine("default", progress=console.print)
    model, tokenizer = engine.model, engine.tokenizer
    layers = list(measure_layers(model, record_rows(model, tokenizer)))
    console.print(layer_table(layers))
    result: dict[str, Any] = {"layers": [asdict(row) for row in layers], "answers": []}
    if not options.skip_answers:
        print("  ".join(f"{title:<{width}}" for title, width in ANSWER_COLUMNS))
        simulator = Simulator(engine.prefiller, tokenizer)
        for row in measure_answers(simulator, options.cases, options.seed, Console(stderr=True)):
            print(answer_line(row), flush=True)
            result["answers"].append(asdict(row))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
