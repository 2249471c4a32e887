"""Decoding side by side: transformers' generate, its blocks on our cache, the lean decoder.

    python -m benchmarks.decoding [--threads 1] [--repeats 5] [--cases 60] [--json FILE]

Prints tokens a second after the first token (medians of runs in turn), their ratios to `generate`,
and what int8 weights and blocks cost: negative log-likelihood of the given answers of generated
retrieval cases over the joined text, and how many greedy tokens are those of float32. If the
package xllamacpp is installed, llama.cpp runs beside them on the embedded model's own 4-bit file.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from benchmarks import llama_cpp
from benchmarks.llama_cpp import LlamaServer
from fedattn.core.sampling import SamplingParams
from fedattn.model.cache import FederatedCache
from fedattn.model.decode import Decoder, TransformersDecoder, generate_tokens
from fedattn.model.engine import open_engine
from fedattn.model.fused import DECODE_FORMATS, FLOAT32, INT8, FusedDecoder
from fedattn.model.graph_decoder import GraphDecoder
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult, forward_tokens
from fedattn.model.prepare import prepare_model, weights_folder
from fedattn.model.prompt import PromptTokenizer
from fedattn.model.source import EMBEDDED_NAME, resolve_source
from fedattn.model.weights.choice import FLOAT32_WEIGHTS, STORED
from fedattn.research.prompts import tokenize_case
from fedattn.research.tasks.retrieval import generate_cases

NUM_TOKENS = 48
BLOCKS = "blocks"


@torch.inference_mode()
def prefill(model: LoadedModel, token_ids: list[int]) -> PrefillResult:
    cache = FederatedCache(model.windows, model.device)
    hidden = forward_tokens(model, cache, token_ids, range(len(token_ids)))
    return PrefillResult(
        cache=cache, logits=model.head(hidden[-1:])[0], next_position=len(token_ids)
    )


def logits_along(
    decoder: Decoder[Any], start: PrefillResult, answer: Sequence[int]
) -> torch.Tensor:
    """Logits [A, V] of the tokens of a given answer [A], each behind those before it."""
    state = decoder.begin(start, len(answer))
    steps = (decoder.step([state], [token])[0] for token in answer[:-1])
    return torch.stack([start.logits, *steps])


def tokens_per_second(run: Callable[[int], int]) -> float:
    """Speed after the first token, from a short and a long run."""
    times = []
    for count in (1, NUM_TOKENS + 1):
        begun = time.perf_counter()
        assert run(count) == count
        times.append(time.perf_counter() - begun)
    return NUM_TOKENS / (times[1] - times[0])


def measure_speed(
    path: Path, model: LoadedModel, stored: LoadedModel, repeats: int
) -> dict[str, float]:
    ids = torch.randint(100, 40_000, (1, 300), generator=torch.Generator().manual_seed(0))
    plain: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    ways: dict[str, tuple[LoadedModel, Decoder[Any]]] = {
        f"lean {name}": (model, FusedDecoder(model, name)) for name in DECODE_FORMATS
    }
    ways["lean blocks"] = stored, GraphDecoder(stored)

    def generate(count: int) -> int:
        output = plain.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=count,
            max_new_tokens=count,
            do_sample=False,
        )
        return int(output.shape[1] - ids.shape[1])

    def ours(model: LoadedModel, decoder: Decoder[Any]) -> Callable[[int], int]:
        start = prefill(model, ids[0].tolist())
        endless = SamplingParams.most_likely(NUM_TOKENS + 1)

        def run(count: int) -> int:
            return len(list(islice(generate_tokens(model, start, endless, lambda: decoder), count)))

        return run

    runs = {"generate": generate, "transformers": ours(model, TransformersDecoder(model))}
    for name, (of_way, decoder) in ways.items():
        runs[name] = ours(of_way, decoder)
    if llama_cpp.is_installed():
        runs["llama.cpp"] = by_llama(ids[0].tolist())
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            speeds[name].append(tokens_per_second(run))
    return {name: statistics.median(values[1:]) for name, values in speeds.items()}


def by_llama(ids: list[int]) -> Callable[[int], int]:
    """The same question by llama.cpp, from the file as it is shipped."""
    path = resolve_source(EMBEDDED_NAME).path
    assert path is not None, "the embedded model is a file"
    server = LlamaServer(path, threads=torch.get_num_threads(), slots=1, room=512)

    def run(count: int) -> int:
        return len(server.token_times(ids, count, slot=0, is_known=True))

    return run


def measure_quality(
    model: LoadedModel, stored: LoadedModel, prompt: PromptTokenizer, num_cases: int
) -> dict[str, float]:
    decoders: dict[str, Decoder[Any]] = {name: FusedDecoder(model, name) for name in DECODE_FORMATS}
    decoders[BLOCKS] = GraphDecoder(stored)
    losses: dict[str, list[float]] = {name: [] for name in decoders}
    matches = dict.fromkeys(decoders, 0)
    same, total = dict.fromkeys(decoders, 0), 0
    for case in generate_cases(num_cases, seed=11):
        case_prompt = tokenize_case(case, prompt, model.shape.num_layers)
        start = prefill(model, case_prompt.token_ids)
        answers = {}
        for name, decoder in decoders.items():
            logits = logits_along(decoder, start, case_prompt.answer)
            target = torch.tensor(case_prompt.answer)
            loss = torch.nn.functional.cross_entropy(logits, target)
            losses[name].append(float(loss))
            sampling = SamplingParams.most_likely(24)
            answers[name] = list(
                generate_tokens(model, start, sampling, partial(decoders.__getitem__, name))
            )
        total += len(answers[FLOAT32])
        for name, answer in answers.items():
            same[name] += sum(a == b for a, b in zip(answers[FLOAT32], answer, strict=False))
            matches[name] += case.answer.lower() in prompt.decode(answer).lower()
    return {
        **{f"nll_{name}": statistics.fmean(values) for name, values in losses.items()},
        **{f"right_{name}": count for name, count in matches.items()},
        **{f"same_tokens_{name}": count / total for name, count in same.items()},
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
    stored = open_engine(prepared, weights=STORED).model
    floats = weights_folder(prepared, FLOAT32_WEIGHTS)
    speeds = measure_speed(floats, model, stored, arguments.repeats)
    for name, speed in speeds.items():
        print(f"{name:14} {speed:6.1f} tokens/s, {speed / speeds['generate']:.2f} of generate")
    quality = measure_quality(model, stored, engine.tokenizer, arguments.cases)
    for name in (FLOAT32, INT8, BLOCKS):
        print(
            f"{name:14} NLL of given answers {quality[f'nll_{name}']:.3f}, "
            f"{quality[f'right_{name}']} of {arguments.cases} right, "
            f"{quality[f'same_tokens_{name}']:.1%} of greedy tokens those of float32"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"speed": speeds, "quality": quality}, indent=2))


if __name__ == "__main__":
    main()
