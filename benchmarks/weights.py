"""Forms of weights side by side: memory, prefill, decoding, and what they cost in quality.

    python -m benchmarks.weights [--forms float32 stored q8_0 q4_0] [--model default]
        [--tokens 64 300 1000] [--repeats 5] [--cases 24] [--json FILE]

Prefill and decoding are CPU seconds of one thread, the least of runs in turn, so that other
programs on the machine count little. Memory is the peak of a process of its own that imports what
a participant does, prefills 300 tokens and, as a publisher, decodes 40. Quality is that of
what a publisher decodes with (of float32 weights int8) over generated retrieval cases: negative
log-likelihood of the given answers, and KL divergence from the first form before their tokens.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.decoding import logits_along, prefill
from fedattn.core.sampling import SamplingParams
from fedattn.model.decode import Decoder, generate_tokens
from fedattn.model.engine import Engine, open_engine
from fedattn.model.placement import choose_decoder
from fedattn.model.prefill import PrefillResult
from fedattn.research.prompts import tokenize_case
from fedattn.research.tasks.retrieval import generate_cases

_STEPS, _TOKENS = 24, 300
_PEAK = """
import gc, sys
import services.participant.app
import torch
from fedattn.runtime.allocator import give_back, share_arenas
from fedattn.model.engine import open_engine
from benchmarks.weights import run_once, status
share_arenas()
torch.set_num_threads(1)
form, publishes, model = sys.argv[1], sys.argv[2] == "1", sys.argv[3]
engine = open_engine(model, weights=form)
gc.collect()
give_back()
run_once(engine, publishes)
print(status("VmHWM"))
"""


def status(key: str) -> int:
    """MiB of a line of /proc/self/status."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[key].split()[0]) >> 10


def run_once(engine: Engine, publishes: bool) -> None:
    engine.prefiller.warm_prefix(engine.tokenizer.prefix())
    start = prefill(engine.model, list(range(100, 100 + _TOKENS)))
    if publishes:
        make = choose_decoder("auto", engine.model)
        list(generate_tokens(engine.model, start, SamplingParams.most_likely(40), make))


def peak_mib(form: str, publishes: bool, model: str) -> int:
    arguments = [sys.executable, "-c", _PEAK, form, str(int(publishes)), model]
    out = subprocess.run(  # noqa: S603 - this file again
        arguments, check=True, capture_output=True, text=True
    ).stdout
    return int(out.split()[-1])


def least_cpu_s(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU seconds of this thread, the least of runs in turn."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            begun = time.thread_time()
            run()
            times[name].append(time.thread_time() - begun)
    return {name: min(taken[1:]) for name, taken in times.items()}


def steps(decoder: Decoder[Any], start: PrefillResult, answers: int) -> None:
    states = [decoder.begin(start, _STEPS) for _ in range(answers)]
    for token in range(_STEPS):
        decoder.step(states, [100 + token] * answers)


def speeds(engines: dict[str, Engine], lengths: list[int], repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for length in lengths:
        ids = torch.randint(100, 40_000, (length,), generator=torch.Generator().manual_seed(0))
        runs: dict[str, Callable[[], object]] = {
            name: partial(prefill, engine.model, ids.tolist()) for name, engine in engines.items()
        }
        found[f"prefill {length}"] = least_cpu_s(runs, repeats)
    decoders, starts = {}, {}
    for name, engine in engines.items():
        begun = time.thread_time()
        decoders[name] = choose_decoder("auto", engine.model)()
        found.setdefault("decoder made", {})[name] = time.thread_time() - begun
        starts[name] = prefill(engine.model, list(range(100, 100 + _TOKENS)))
    for answers in (1, 8):
        runs = {
            name: partial(steps, decoder, starts[name], answers)
            for name, decoder in decoders.items()
        }
        taken = least_cpu_s(runs, repeats)
        found[f"tokens/s, {answers} at once"] = {
            name: answers * _STEPS / cpu_s for name, cpu_s in taken.items()
        }
    return found


def quality(engines: dict[str, Engine], num_cases: int) -> dict[str, dict[str, float]]:
    """Means over the tokens of the given answers, along what a publisher decodes with."""
    sums = {name: {"nll": 0.0, "kl": 0.0} for name in engines}
    decoders = {name: choose_decoder("auto", engine.model)() for name, engine in engines.items()}
    total = 0
    for case in generate_cases(num_cases, seed=11):
        first: torch.Tensor | None = None
        for name, engine in engines.items():
            prompt = tokenize_case(case, engine.tokenizer, engine.model.shape.num_layers)
            start = prefill(engine.model, prompt.token_ids)
            logits = logits_along(decoders[name], start, prompt.answer)
            logs = torch.log_softmax(logits.float(), dim=-1)
            first = logs if first is None else first
            target = torch.tensor(prompt.answer)
            sums[name]["nll"] -= float(logs.gather(1, target[:, None]).sum())
            sums[name]["kl"] += float((first.exp() * (first - logs)).sum())
        total += len(prompt.answer)
    return {name: {key: value / total for key, value in one.items()} for name, one in sums.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--forms", nargs="+", default=["float32", "stored", "q8_0", "q4_0"])
    parser.add_argument("--model", default="default")
    parser.add_argument("--tokens", type=int, nargs="+", default=[64, 300, 1000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    engines = {form: open_engine(arguments.model, weights=form) for form in arguments.forms}
    found: dict[str, Any] = {
        f"peak MiB, {role}": {
            form: peak_mib(form, role == "publisher", arguments.model) for form in engines
        }
        for role in ("contributor", "publisher")
    }
    found["weights MiB"] = {
        form: engine.model.sizes.weight_bytes >> 20 for form, engine in engines.items()
    }
    found |= speeds(engines, arguments.tokens, arguments.repeats)
    if arguments.cases:
        held = quality(engines, arguments.cases)
        found["NLL of answers"] = {form: one["nll"] for form, one in held.items()}
        found["KL to the first"] = {form: one["kl"] for form, one in held.items()}
    for what, values in found.items():
        print(f"{what:24}", *(f"{form} {value:.4g}" for form, value in values.items()), sep="  ")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
