"""Decoding side by side: transformers' generate, its blocks on our cache, the lean decoder.

    python -m benchmarks.decoding [--threads 1] [--repeats 5] [--cases 60] [--json FILE]

Prints tokens a second after the first token (medians of runs in turn), their ratios to `generate`,
and what int8 weights cost: negative log-likelihood of the given answers of generated retrieval
cases over the joined text, and how many greedy tokens are those of float32. If the package
llama-cpp-python is installed, llama.cpp runs beside them on the embedded model's own 4-bit file.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from fedattn.core.sampling import SamplingParams
from fedattn.model.cache import FederatedCache
from fedattn.model.decode import Decoder, TransformersDecoder, generate_tokens
from fedattn.model.engine import open_engine
from fedattn.model.fused import DECODE_FORMATS, FLOAT32, INT8, FusedDecoder
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult, forward_tokens
from fedattn.model.prepare import prepare_model, weights_folder
from fedattn.model.prompt import PromptTokenizer
from fedattn.model.source import resolve_source
from fedattn.model.weights.choice import FLOAT32_WEIGHTS
from fedattn.research.prompts import tokenize_case
from fedattn.research.tasks.retrieval import generate_cases

NUM_TOKENS = 48


@torch.inference_mode()
def prefill(model: LoadedModel, token_ids: list[int]) -> PrefillResult:
    cache = FederatedCache(model.windows, model.device)
    hidden = forward_tokens(model, cache, token_ids, range(len(token_ids)))
    return PrefillResult(
        cache=cache, logits=model.head(hidden[-1:])[0], next_position=len(token_ids)
    )


def tokens_per_second(run: Callable[[int], int]) -> float:
    """Speed after the first token, from a short and a long run."""
    times = []
    for count in (1, NUM_TOKENS + 1):
        begun = time.perf_counter()
        assert run(count) == count
        times.append(time.perf_counter() - begun)
    return NUM_TOKENS / (times[1] - times[0])


def measure_speed(path: Path, model: LoadedModel, repeats: int) -> dict[str, float]:
    ids = torch.randint(100, 40_000, (1, 300), generator=torch.Generator().manual_seed(0))
    plain: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    decoders = {name: FusedDecoder(model, name) for name in DECODE_FORMATS}

    def generate(count: int) -> int:
        output = plain.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=count,
            max_new_tokens=count,
            do_sample=False,
        )
        return int(output.shape[1] - ids.shape[1])

    def ours(decoder: Decoder[Any]) -> Callable[[int], int]:
        start = prefill(model, ids[0].tolist())
        endless = SamplingParams.most_likely(NUM_TOKENS + 1)

        def run(count: int) -> int:
            return len(list(islice(generate_tokens(model, start, endless, lambda: decoder), count)))

        return run

    runs = {"generate": generate, "blocks": ours(TransformersDecoder(model))}
    runs |= {f"lean {name}": ours(decoder) for name, decoder in decoders.items()}
    if find_spec("llama_cpp") is not None:
        runs["llama.cpp"] = llama_cpp(ids[0].tolist())
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            speeds[name].append(tokens_per_second(run))
    return {name: statistics.median(values[1:]) for name, values in speeds.items()}


def llama_cpp(ids: list[int]) -> Callable[[int], int]:
    """The same tokens by llama.cpp, from the file as it is shipped."""
    llama: Any = import_module("llama_cpp")
    threads = torch.get_num_threads()
    path = str(resolve_source("default").path)
    model = llama.Llama(path, n_threads=threads, n_threads_batch=threads, n_ctx=1024, verbose=False)

    def run(count: int) -> int:
        model.reset()
        model.eval(ids)
        for number in range(count - 1):
            model.eval([100 + number])
        return count

    return run


def measure_quality(
    model: LoadedModel, prompt: PromptTokenizer, num_cases: int
) -> dict[str, float]:
    decoders = {name: FusedDecoder(model, name) for name in DECODE_FORMATS}
    losses: dict[str, list[float]] = {name: [] for name in DECODE_FORMATS}
    matches = dict.fromkeys(DECODE_FORMATS, 0)
    same, total, same_answers = 0, 0, 0
    for case in generate_cases(num_cases, seed=11):
        case_prompt = tokenize_case(case, prompt, model.shape.num_layers)
        start = prefill(model, case_prompt.token_ids)
        answers = {}
        for name, decoder in decoders.items():
            state = decoder.begin(start, len(case_prompt.answer))
            logits = [start.logits]
            logits += [decoder.step([state], [token])[0] for token in case_prompt.answer[:-1]]
            target = torch.tensor(case_prompt.answer)
            loss = torch.nn.functional.cross_entropy(torch.stack(logits), target)
            losses[name].append(float(loss))
            sampling = SamplingParams.most_likely(24)
            answers[name] = list(
                generate_tokens(model, start, sampling, partial(decoders.__getitem__, name))
            )
        pairs = list(zip(answers[FLOAT32], answers[INT8], strict=False))
        same += sum(a == b for a, b in pairs)
        total += max(len(answers[FLOAT32]), len(answers[INT8]))
        same_answers += answers[FLOAT32] == answers[INT8]
        for name, answer in answers.items():
            matches[name] += case.answer.lower() in prompt.decode(answer).lower()
    return {
        **{f"nll_{name}": statistics.fmean(values) for name, values in losses.items()},
        **{f"right_{name}": count for name, count in matches.items()},
        "same_tokens": same / total,
        "same_answers": same_answers / num_cases,
        "num_cases": num_cases,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    prepared = prepare_model("default")
    engine = open_engine(prepared, weights=FLOAT32)
    model = engine.model
    floats = weights_folder(prepared, FLOAT32_WEIGHTS)
    speeds = measure_speed(floats, model, arguments.repeats)
    for name, speed in speeds.items():
        print(f"{name:14} {speed:6.1f} tokens/s, {speed / speeds['generate']:.2f} of generate")
    prompt = engine.tokenizer
    quality = measure_quality(model, prompt, arguments.cases)
    print(
        f"NLL of given answers {quality['nll_float32']:.3f} float32, "
        f"{quality['nll_int8']:.3f} int8; {quality['same_tokens']:.1%} of greedy tokens and "
        f"{quality['same_answers']:.0%} of answers equal; {quality['right_float32']} and "
        f"{quality['right_int8']} of {arguments.cases} answers right"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps({"speed": speeds, "quality": quality}, indent=2))


if __name__ == "__main__":
    main()
