"""The README's table of measured figures, from the JSON files of the benchmarks.

    python -m benchmarks.table [--check]

Reads benchmarks/results/*.json, as `make bench-all` writes them, and rewrites what stands between
the markers in README.md. `--check` only says whether it is up to date.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def session_rows(long: dict[str, Any], short: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    network, small = long["network"], short["network"]
    differences = long["logits_difference"]
    command = "`make bench`"
    sizes = f"{network['prompt_tokens']:.0f} ({small['prompt_tokens']:.0f}) tokens"
    oracle = max(value for name, value in differences.items() if name.endswith("_oracle"))
    yield (
        "largest difference of the first answer token's logits, fp32 codec: against the "
        "one-model oracle; against plain transformers (plan `all`)",
        f"{oracle:.0e}; {differences['all_transformers']:.0e}",
        "1e-4",
        command,
    )
    yield (
        f"CPU time of a session of four nodes on one machine against one transformers prefill of "
        f"the joined text, {sizes}",
        f"{network['cpu_ratio']:.2f} ({small['cpu_ratio']:.2f})",
        "1.15",
        command,
    )
    yield (
        "the same mathematics in one process, no network",
        f"{long['in_process']['cpu_ratio']:.2f} ({short['in_process']['cpu_ratio']:.2f})",
        "",
        command,
    )
    yield (
        "time to first token of a second question over unchanged contexts, against the first; no "
        "KV moves, same answer",
        f"{network['warm_ttft_ratio']:.2f} ({small['warm_ttft_ratio']:.2f})",
        "0.15",
        command,
    )
    yield (
        "its CPU time against one prefill",
        f"{network['warm_cpu_ratio']:.2f} ({small['warm_cpu_ratio']:.2f})",
        "",
        command,
    )
    yield (
        "KV bytes that contributors send, default codec and plan, against `bf16` at every block "
        "([quality](docs/plans.md#codecs-on-top))",
        f"1/{network['bf16_bytes'] / network['kv_bytes']:.1f} of "
        f"{network['bf16_bytes'] / 1e6:.1f} MB",
        "1/16",
        command,
    )


def memory_rows(full: dict[str, Any], half: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, result in (("float32", full), ("bfloat16", half)):
        network = result["network"]
        for node in ("a", "publisher"):
            what = "contributor" if node == "a" else "publisher, which decodes in int8"
            yield (
                f"memory, `--weights {name}`, {what}: own pages; peak of the process with pages it "
                f"shares; weights and rows by `fedattn cost`",
                f"{network['uss_mib'][node]}; {network['peak_mib'][node]}; "
                f"{network['planned_mib'][node]} MiB",
                "512 MiB" if (name, node) == ("bfloat16", "a") else "",
                "`make bench-all`",
            )
    own = full["network"]["uss_mib"]
    yield (
        "own pages of aggregator and gateway",
        f"{own['aggregator']}; {own['gateway']} MiB",
        "",
        "`make bench`",
    )


def link_rows(links: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for row in links:
        yield (
            f"time to first token over {row['link']}, codec `{row['codec']}`, against the larger "
            f"of {row['compute_s']:.2f} s without limits and {row['transfer_s']:.2f} s for "
            f"{row['busiest_node_bytes'] / 1e6:.1f} MB",
            f"{row['ratio']:.2f}",
            "1.3",
            "`make bench-links`",
        )


def decoding_rows(decoding: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    speed, quality = decoding["speed"], decoding["quality"]
    llama = ""
    if "llama.cpp" in speed:
        llama = f"; llama.cpp {speed['llama.cpp']:.0f}"
    yield (
        f"decoding on one thread, int8 weights, against transformers' `generate` in float32 "
        f"(tokens/s: {speed['lean int8']:.0f} and {speed['generate']:.0f}{llama})",
        f"{speed['lean int8'] / speed['generate']:.1f}",
        "4",
        "`make bench-decoding`",
    )
    yield (
        f"what int8 costs: NLL of given answers; right answers of {quality['num_cases']}; greedy "
        f"tokens equal to float32's",
        f"{quality['nll_int8']:.3f} for {quality['nll_float32']:.3f}; {quality['right_int8']} for "
        f"{quality['right_float32']}; {quality['same_tokens']:.0%}",
        "",
        "`make bench-decoding`",
    )


def load_rows(load: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in load["relay"][2:]:
        yield (
            f"aggregator: MB relayed for each CPU second, frames of {row['frame_kb']:.0f} KB; a "
            f"gRPC server that only passes on does {row['bare_mb_per_cpu_s']:.0f}",
            f"{row['mb_per_cpu_s']:.0f}",
            "400",
            "`make bench-load`",
        )
    most, memory = load["at_once"][-1], load["memory"]
    yield (
        f"sessions at once, {most['contributors']} dummy contributors each; latency of a frame, "
        f"median and 99th percentile",
        f"{most['sessions']}; {most['latency_p50_ms']:.0f} and {most['latency_p99_ms']:.0f} ms",
        "200",
        "`make bench-load`",
    )
    yield (
        f"own memory of the aggregator after {memory[0]['sessions']} and "
        f"{memory[-1]['sessions']} sessions",
        f"{memory[0]['own_mib']:.0f} and {memory[-1]['own_mib']:.0f} MiB",
        "flat",
        "`make bench-load`",
    )


def plan_rows(plans: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    whole = next(row for row in plans if row["family"] == "every block")
    calibrated = [row for row in plans if row["family"] == "calibrated"]
    for size in (18, 8):
        row = next(row for row in calibrated if row["layers"] == size)
        yield (
            f"right answers with {size} calibrated blocks, of the {whole['right']} that one model "
            f"over the joined text gets ({whole['cases']} questions)",
            f"{row['right'] / whole['right']:.0%}",
            "95 %",
            "`make bench-plans`",
        )


def table() -> str:
    """The whole block, markers included."""
    rows = [
        *session_rows(read("session"), read("session-short")),
        *plan_rows(read("plans")),
        *link_rows(read("links")["links"]),
        *decoding_rows(read("decoding")),
        *load_rows(read("load")),
        *memory_rows(read("session"), read("session-bfloat16")),
    ]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    head = ["| what | measured | bar | command |", "|---|---|---|---|"]
    return "\n".join([BEGIN, *head, *lines, END])


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text()
    begin, end = text.index(BEGIN), text.index(END) + len(END)
    updated = text[:begin] + table() + text[end:]
    if "--check" in sys.argv:
        sys.exit(0 if updated == text else "README.md is not what benchmarks/results say")
    readme.write_text(updated)


if __name__ == "__main__":
    main()
