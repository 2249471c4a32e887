"""Memory and time of one long prompt, in pieces and by transformers' own attention, side by side.

    python -m benchmarks.long_prompts [--tokens 1024 2048 4096 8192] [--repeats 3] [--json FILE]

Both prefill the same tokens on one thread, in turn, in one process, and keep the rows of every
block. Prints for each length:

    peak     most memory above what the process had before, weights excluded, MiB
    rows     bytes of keys and values, which both must have in the end, MiB
    cpu      CPU seconds, median; GFLOP by the cost model, in which every query meets every row
    logits   largest difference of the last token's logits
"""

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fedattn.core.costs import session_costs
from fedattn.core.plans import shared_plan
from fedattn.core.spans import build_layout
from fedattn.model.cache import FederatedCache
from fedattn.model.engine import Engine, open_engine
from fedattn.model.hugging_face import AutoModelForCausalLM
from fedattn.model.prefill import forward_tokens
from fedattn.model.prepare import prepare_model, weights_folder
from fedattn.model.weights.choice import FLOAT32_WEIGHTS
from fedattn.runtime.allocator import give_back

Run = Callable[[list[int]], torch.Tensor]
"""Prefills token ids; returns the last token's logits [V], and holds the rows until then."""
_PROC = Path("/proc/self")


def _status(name: str) -> int:
    """Bytes of a line of the process's status."""
    lines = (_PROC / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) << 10


def measure(run: Run, ids: list[int]) -> tuple[float, int, torch.Tensor]:
    """CPU seconds, bytes at the peak above those before, logits."""
    gc.collect()
    give_back()
    (_PROC / "clear_refs").write_text("5")  # the peak starts anew
    before, begun = _status("VmRSS"), time.process_time()
    logits = run(ids)
    return time.process_time() - begun, _status("VmHWM") - before, logits


def in_pieces(engine: Engine) -> Run:
    model = engine.model

    @torch.inference_mode()
    def run(ids: list[int]) -> torch.Tensor:
        cache = FederatedCache(model.windows, model.device)
        hidden = forward_tokens(model, cache, ids, range(len(ids)))
        logits: torch.Tensor = model.head(hidden[-1:])[0]
        return logits

    return run


def by_transformers(network: Any) -> Run:
    @torch.inference_mode()
    def run(ids: list[int]) -> torch.Tensor:
        output = network(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        logits: torch.Tensor = output.logits[0, -1]
        return logits

    return run


def compare(engine: Engine, network: Any, num_tokens: int, repeats: int) -> dict[str, float]:
    """Medians of both, for one length."""
    ids = torch.randint(100, 40_000, (num_tokens,)).tolist()
    runs = {"pieces": in_pieces(engine), "transformers": by_transformers(network)}
    samples: dict[str, list[tuple[float, int, torch.Tensor]]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            samples[name].append(measure(run, ids))
    ours, theirs = (samples[name][0][2] for name in runs)
    shape = engine.model.shape
    layout = build_layout(
        num_layers=shape.num_layers,
        prefix_len=0,
        contributors=[],
        publisher=("alone", num_tokens),
        plans=shared_plan([]),
    )
    gflop = session_costs(layout, engine.model.sizes)[-1].flops_prefill / 1e9
    result = {
        "tokens": num_tokens,
        "rows_mib": num_tokens * shape.num_layers * shape.values_per_row * 4 / 2**20,
        "gflop": gflop,
        "logits_difference": float((ours - theirs).abs().max()),
    }
    for name, taken in samples.items():
        cpu_s = statistics.median(one[0] for one in taken)
        result[f"{name}_cpu_s"] = cpu_s
        result[f"{name}_gflop_per_s"] = gflop / cpu_s
        result[f"{name}_peak_mib"] = max(one[1] for one in taken) / 2**20
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    prepared = prepare_model("default")
    engine = open_engine(prepared)
    floats = weights_folder(prepared, FLOAT32_WEIGHTS)
    network = AutoModelForCausalLM.from_pretrained(floats, dtype=torch.float32)
    compare(engine, network, 64, 1)  # warm-up of both
    results = []
    for num_tokens in arguments.tokens:
        found = compare(engine, network, num_tokens, arguments.repeats)
        results.append(found)
        print(
            f"{num_tokens} tokens, rows {found['rows_mib']:.0f} MiB, {found['gflop']:.0f} GFLOP, "
            f"logits differ by {found['logits_difference']:.1e}"
        )
        for name in ("pieces", "transformers"):
            print(
                f"  {name:12} peak {found[f'{name}_peak_mib']:5.0f} MiB, "
                f"{found[f'{name}_cpu_s']:6.1f} CPU s, "
                f"{found[f'{name}_gflop_per_s']:5.1f} GFLOP/s",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
