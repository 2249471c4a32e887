"""Questions at once against the same ones in a row, at one publisher, in one process.

    python -m benchmarks.concurrency [--at-once 1 2 4 8 16] [--tokens 300] [--answer 48]
        [--long 1500] [--prompts 2] [--threads N] [--repeats 5] [--json FILE] [--plot FILE]

Questions of random tokens, half as long to half as long again as `--tokens`, and answers of one
length. Three ways to decode: `together` is the node's loop, `threads` a thread and a batch of one
each, `in a row` one question after the other. For each number of questions:

- decoding alone, after all prefills: tokens a second of all together, and how far the pace of the
  fastest and the slowest answer are apart;
- whole questions that come at the same time: tokens a second, time to first token from the
  arrival of all, time between tokens;
- `--long`: time between tokens of running answers while `--prompts` prompts of so many tokens are
  prefilled, in turns and all at once.

Runs of all ways alternate; figures are medians of the repeats, percentiles over all of them.
"""

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.concurrency_plot import plot
from fedattn.core.plans import PlanSpec, RolePlans
from fedattn.core.sampling import SamplingParams
from fedattn.core.spans import build_layout
from fedattn.model.cores import Cores
from fedattn.model.decode import Decoder, generate_tokens
from fedattn.model.decode_loop import DecodeLoop
from fedattn.model.engine import open_engine
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.loading import LoadedModel
from fedattn.model.placement import choose_decoder
from fedattn.model.prefill import Prefiller, PrefillResult

TOGETHER, THREADS, IN_A_ROW = "together", "threads", "in a row"
_FILES = ("json", "plot")
WAYS = (TOGETHER, THREADS, IN_A_ROW)
Generate = Callable[[PrefillResult], Iterator[int]]


@dataclass(slots=True)
class Asked:
    """One question: when its tokens came, by `time.perf_counter`."""

    arrived: float
    token_at: list[float] = field(default_factory=list)

    @property
    def first_token_s(self) -> float:
        return self.token_at[0] - self.arrived

    @property
    def gaps_s(self) -> list[float]:
        return [b - a for a, b in zip(self.token_at, self.token_at[1:], strict=False)]

    @property
    def tokens_per_s(self) -> float:
        """After the first token."""
        return (len(self.token_at) - 1) / (self.token_at[-1] - self.token_at[0])


class Bench:
    """One model, and the ways to decode by it."""

    def __init__(self, model: LoadedModel, threads: int, answer: int) -> None:
        self.model = replace(model, end_token_ids=frozenset())  # all answers have one length
        self.threads = threads
        self.decoder: Decoder[Any] = choose_decoder("auto", model)()
        self.sampling = SamplingParams.most_likely(answer)
        self.prefiller = Prefiller(self.model)

    def prefill(self, token_ids: list[int]) -> PrefillResult:
        """A question with no contributors."""
        torch.set_num_threads(self.threads)
        none = PlanSpec("none").resolve(self.model.shape.num_layers)
        layout = build_layout(
            num_layers=self.model.shape.num_layers,
            prefix_len=0,
            contributors=[],
            publisher=("publisher", len(token_ids)),
            plans=RolePlans(contributors=none, publisher=none),
        )
        exchange = InProcessExchange(KvStore(layout, self.model.shape, self.model.rotaries), 0)
        return self.prefiller.publish(layout.publisher, [], token_ids, exchange)

    def ways(self, way: str, cores: Cores | None = None) -> tuple[Generate, Callable[[], object]]:
        """What decodes, and how to end it."""
        if way != TOGETHER:
            run: Generate = lambda prefill: generate_tokens(  # noqa: E731
                self.model, prefill, self.sampling, lambda: self.decoder
            )
            return run, lambda: None
        loop = DecodeLoop(
            self.model,
            lambda: self.decoder,
            cores=cores or self.prefiller.cores,
            num_threads=lambda: self.threads,
        )
        return lambda prefill: loop.generate(prefill, self.sampling), loop.close

    def run(self, way: str, questions: list[Callable[[], PrefillResult]]) -> list[Asked]:
        """Ask all; those who are asked in a row arrive at the same time too."""
        generate, close = self.ways(way)
        arrived = time.perf_counter()
        asked = [Asked(arrived) for _ in questions]

        def answer(one: Asked, question: Callable[[], PrefillResult]) -> None:
            torch.set_num_threads(self.threads)
            for _ in generate(question()):
                one.token_at.append(time.perf_counter())

        with ThreadPoolExecutor(1 if way == IN_A_ROW else len(questions)) as pool:
            list(pool.map(answer, asked, questions))
        close()
        return asked

    def beside_long(
        self, prompts: list[list[int]], answers: list[PrefillResult], cores: Cores
    ) -> tuple[list[float], float]:
        """Gaps between tokens of answers while prompts are prefilled, and the time of the latter.

        Args:
            prompts: they come at the same time, once all answers are under way.
            answers: they are begun anew as they end.
            cores: those of the prefills, or others for no turns.
        """
        generate, close = self.ways(TOGETHER, cores)
        under_way, prefilled = threading.Barrier(len(answers) + 1), threading.Event()
        gaps: list[float] = []

        def answer(prefill: PrefillResult) -> None:
            next(iter(generate(prefill)))
            under_way.wait()
            while not prefilled.is_set():
                before = 0.0
                for _ in generate(prefill):
                    now = time.perf_counter()
                    if before:
                        gaps.append(now - before)
                    before = now

        def ask() -> float:
            under_way.wait()
            begun = time.perf_counter()
            with ThreadPoolExecutor(len(prompts)) as pool:
                list(pool.map(self.prefill, prompts))
            prefilled.set()
            return time.perf_counter() - begun

        with ThreadPoolExecutor(len(answers) + 1) as pool:
            running = [pool.submit(answer, one) for one in answers]
            duration = pool.submit(ask).result()
            for one in running:
                one.result()
        close()
        return gaps, duration


def _ready(prefill: PrefillResult) -> PrefillResult:
    return prefill


def total_rate(asked: list[Asked]) -> float:
    """Tokens a second of all, from the arrival to the last token."""
    last = max(one.token_at[-1] for one in asked)
    return sum(len(one.token_at) for one in asked) / (last - asked[0].arrived)


def percentiles(values: list[float]) -> dict[str, float]:
    """p50 and p95 in milliseconds."""
    ordered = sorted(values)
    return {
        f"p{share}": 1000 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)]
        for share in (50, 95)
    }


def measure(bench: Bench, prompts: list[list[int]], repeats: int) -> dict[str, Any]:
    """All ways with these questions."""
    ready = [bench.prefill(prompt) for prompt in prompts]
    found: dict[str, Any] = {way: {"decode": [], "rate": [], "spread": []} for way in WAYS}
    firsts: dict[str, list[float]] = {way: [] for way in WAYS}
    gaps: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            asked = bench.run(way, [partial(_ready, one) for one in ready])
            paces = [one.tokens_per_s for one in asked]
            found[way]["decode"].append(total_rate(asked))
            found[way]["spread"].append((max(paces) - min(paces)) / statistics.fmean(paces))
            asked = bench.run(way, [partial(bench.prefill, one) for one in prompts])
            found[way]["rate"].append(total_rate(asked))
            firsts[way] += [one.first_token_s for one in asked]
            gaps[way] += [gap for one in asked for gap in one.gaps_s]
    return {
        way: {
            "decode_tokens_per_s": statistics.median(found[way]["decode"]),
            "decode_spread": statistics.median(found[way]["spread"]),
            "tokens_per_s": statistics.median(found[way]["rate"]),
            "first_token_ms": percentiles(firsts[way]),
            "between_tokens_ms": percentiles(gaps[way]),
        }
        for way in WAYS
    }


def measure_long(
    bench: Bench, answers: list[list[int]], prompts: list[list[int]], repeats: int
) -> dict[str, Any]:
    """Answers beside long prompts, with turns and without."""
    ready = [bench.prefill(prompt) for prompt in answers]
    ways = {"turns": bench.prefiller.cores, "free": Cores()}
    gaps: dict[str, list[float]] = {name: [] for name in ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, cores in ways.items():
            found, duration = bench.beside_long(prompts, ready, cores)
            gaps[name] += found
            times[name].append(duration)
    return {
        name: {
            "between_tokens_ms": percentiles(gaps[name]) | {"max": 1000 * max(gaps[name])},
            "prefill_s": statistics.median(times[name]),
        }
        for name in ways
    }


def random_prompt(length: int, seed: int) -> list[int]:
    ids = torch.randint(100, 40_000, (length,), generator=torch.Generator().manual_seed(seed))
    return ids.tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--answer", type=int, default=48)
    parser.add_argument("--long", type=int, default=1500)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = Bench(open_engine("default").model, arguments.threads, arguments.answer)
    prompts = [
        random_prompt(int(arguments.tokens * (0.5 + number % 5 / 4)), number)
        for number in range(max(arguments.at_once))
    ]
    bench.run(TOGETHER, [lambda: bench.prefill(prompts[0])])  # warm
    settings = {key: value for key, value in vars(arguments).items() if key not in _FILES}
    result: dict[str, Any] = {"settings": settings, "at_once": {}, "long": {}}
    for count in arguments.at_once:
        row = measure(bench, prompts[:count], arguments.repeats)
        result["at_once"][count] = row
        for way, figures in row.items():
            first, gap = figures["first_token_ms"], figures["between_tokens_ms"]
            print(
                f"{count:2} {way:9} decoding {figures['decode_tokens_per_s']:6.1f} tokens/s, paces "
                f"{figures['decode_spread']:4.0%} apart; questions {figures['tokens_per_s']:6.1f}, "
                f"first token {first['p50']:5.0f} ms, p95 {first['p95']:5.0f}, "
                f"between {gap['p50']:4.0f} ms, p95 {gap['p95']:4.0f}",
                flush=True,
            )
    if arguments.long:
        long = [random_prompt(arguments.long, 900 + one) for one in range(arguments.prompts)]
        for count in (count for count in arguments.at_once if count <= 8):
            row = measure_long(bench, prompts[:count], long, arguments.repeats)
            result["long"][count] = row
            for way, figures in row.items():
                gap = figures["between_tokens_ms"]
                print(
                    f"{count:2} beside {arguments.prompts} prompts of {arguments.long}, {way:5} "
                    f"between {gap['p50']:4.0f} ms, p95 {gap['p95']:4.0f}, most {gap['max']:5.0f}; "
                    f"prompts {figures['prefill_s']:.1f} s",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.plot:
        plot(result, arguments.plot)


if __name__ == "__main__":
    main()
