"""Questions at once against the same ones in a row, at one publisher, in one process.

    python -m benchmarks.concurrency [--at-once 1 2 4 8 16] [--tokens 300] [--answer 48]
        [--long 1500] [--prompts 2] [--threads N] [--repeats 5] [--json FILE] [--plot FILE]

Questions of random tokens, half as long to half as long again as `--tokens`, and answers of one
length. Two ways to decode: `together` is the node's loop, `in a row` one question after the other.
For each number of questions:

- decoding alone, after all prefills: tokens a second of all together, and how far the pace of the
  fastest and the slowest answer are apart;
- whole questions that come at the same time: tokens a second, time to first token from the
  arrival of all, time between tokens;
- `--long`: time between tokens of running answers while `--prompts` prompts of so many tokens are
  prefilled, in turns and all at once.

If the package xllamacpp is installed, llama.cpp's server answers the same questions, from the
embedded model's own 4-bit file, with a slot for each and as many threads.

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

from benchmarks import llama_cpp
from benchmarks.concurrency_plot import plot
from benchmarks.llama_cpp import LlamaServer
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
from fedattn.model.source import EMBEDDED_NAME, resolve_source

TOGETHER, IN_A_ROW = "together", "in a row"
_FILES = ("json", "plot")
WAYS = (TOGETHER, IN_A_ROW)
LLAMA_CPP = "llama.cpp"
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


def ask_llama(
    server: LlamaServer, prompts: list[list[int]], answer: int, *, is_known: bool
) -> list[Asked]:
    """The same questions at the same time at llama.cpp; known ones need only be decoded."""
    arrived = time.perf_counter()

    def ask(slot: int, prompt: list[int]) -> Asked:
        times = server.token_times(prompt, answer, slot=slot, is_known=is_known)
        return Asked(arrived, times)

    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(ask, range(len(prompts)), prompts))


def start_llama(prompts: list[list[int]], threads: int, answer: int) -> LlamaServer | None:
    """llama.cpp with room for these questions, if it is installed."""
    if not llama_cpp.is_installed():
        return None
    path = resolve_source(EMBEDDED_NAME).path
    assert path is not None, "the embedded model is a file"
    room = -(-(max(map(len, prompts)) + answer) // 256) * 256
    return LlamaServer(path, threads=threads, slots=len(prompts), room=room)


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
    runs: dict[str, list[tuple[list[Asked], list[Asked]]]] = {way: [] for way in WAYS}
    server = start_llama(prompts, bench.threads, bench.sampling.max_new_tokens)
    if server is not None:
        runs[LLAMA_CPP] = []
    for _ in range(repeats):
        for way in WAYS:
            decoded = bench.run(way, [partial(_ready, one) for one in ready])
            whole = bench.run(way, [partial(bench.prefill, one) for one in prompts])
            runs[way].append((decoded, whole))
        if server is not None:
            ask = partial(ask_llama, server, prompts, bench.sampling.max_new_tokens)
            whole = ask(is_known=False)
            runs[LLAMA_CPP].append((ask(is_known=True), whole))
    return {way: figures(of_way) for way, of_way in runs.items()}


def figures(runs: list[tuple[list[Asked], list[Asked]]]) -> dict[str, Any]:
    """Of one way: of each repeat decoding alone, and whole questions."""
    paces = [[one.tokens_per_s for one in decoded] for decoded, _ in runs]
    asked = [one for _, whole in runs for one in whole]
    return {
        "decode_tokens_per_s": statistics.median(total_rate(decoded) for decoded, _ in runs),
        "decode_spread": statistics.median(
            (max(each) - min(each)) / statistics.fmean(each) for each in paces
        ),
        "tokens_per_s": statistics.median(total_rate(whole) for _, whole in runs),
        "first_token_ms": percentiles([one.first_token_s for one in asked]),
        "between_tokens_ms": percentiles([gap for one in asked for gap in one.gaps_s]),
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
        for way, found in row.items():
            first, gap = found["first_token_ms"], found["between_tokens_ms"]
            print(
                f"{count:2} {way:9} decoding {found['decode_tokens_per_s']:6.1f} tokens/s, paces "
                f"{found['decode_spread']:4.0%} apart; questions {found['tokens_per_s']:6.1f}, "
                f"first token {first['p50']:5.0f} ms, p95 {first['p95']:5.0f}, "
                f"between {gap['p50']:4.0f} ms, p95 {gap['p95']:4.0f}",
                flush=True,
            )
    if arguments.long:
        long = [random_prompt(arguments.long, 900 + one) for one in range(arguments.prompts)]
        for count in (count for count in arguments.at_once if count <= 8):
            row = measure_long(bench, prompts[:count], long, arguments.repeats)
            result["long"][count] = row
            for way, found in row.items():
                gap = found["between_tokens_ms"]
                print(
                    f"{count:2} beside {arguments.prompts} prompts of {arguments.long}, {way:5} "
                    f"between {gap['p50']:4.0f} ms, p95 {gap['p95']:4.0f}, most {gap['max']:5.0f}; "
                    f"prompts {found['prefill_s']:.1f} s",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    if arguments.plot:
        plot(result, arguments.plot)


if __name__ == "__main__":
    main()
