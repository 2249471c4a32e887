"""Rows of the tables of measured figures: what each result of a benchmark says in a line."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.blocks import ROOT

RESULTS = ROOT / "benchmarks" / "results"


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        what: what was measured.
        measured: the figure, with its unit.
        bar: what it should reach; empty if nothing was set.
        command: what measures it again.
        in_readme: whether it is one of the README's five.
    """

    what: str
    measured: str
    bar: str
    command: str
    in_readme: bool = False


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def session_rows(long: dict[str, Any], short: dict[str, Any]) -> Iterator[Row]:
    network, small = long["network"], short["network"]
    differences = long["logits_difference"]
    command = "`make bench`"
    sizes = f"{network['prompt_tokens']:.0f} ({small['prompt_tokens']:.0f}) tokens"
    oracle = max(value for name, value in differences.items() if name.endswith("_oracle"))
    yield Row(
        "largest difference of the first answer token's logits, fp32 codec: against the "
        "one-model oracle; against plain transformers (plan `all`)",
        f"{oracle:.0e}; {differences['all_transformers']:.0e}",
        "1e-4",
        command,
        in_readme=True,
    )
    yield Row(
        f"CPU time of a session of four nodes on one machine against one transformers prefill of "
        f"the joined text, {sizes}",
        f"{network['cpu_ratio']:.2f} ({small['cpu_ratio']:.2f})",
        "1.15",
        command,
        in_readme=True,
    )
    yield Row(
        "the same mathematics in one process, no network",
        f"{long['in_process']['cpu_ratio']:.2f} ({short['in_process']['cpu_ratio']:.2f})",
        "",
        command,
    )
    yield Row(
        "time to first token of a second question over unchanged contexts, against the first; no "
        "KV moves, same answer",
        f"{network['warm_ttft_ratio']:.2f} ({small['warm_ttft_ratio']:.2f})",
        "0.15",
        command,
        in_readme=True,
    )
    yield Row(
        "its CPU time against one prefill",
        f"{network['warm_cpu_ratio']:.2f} ({small['warm_cpu_ratio']:.2f})",
        "",
        command,
    )
    yield Row(
        "KV bytes that contributors send, default codec and plan, against `bf16` at every block "
        "([quality](plans.md#bytes-against-quality))",
        f"1/{network['bf16_bytes'] / network['kv_bytes']:.1f} of "
        f"{network['bf16_bytes'] / 1e6:.1f} MB",
        "1/16",
        command,
    )


def memory_rows(stored: dict[str, Any]) -> Iterator[Row]:
    forms = {"auto": stored, "float32": read("session-float32")}
    forms["bfloat16"] = read("session-bfloat16")
    bars = {("auto", "a"): "400 MiB peak", ("auto", "publisher"): "600 MiB peak"}
    for name, result in forms.items():
        network = result["network"]
        for node in ("a", "publisher"):
            yield Row(
                f"memory, `--weights {name}`, {'contributor' if node == 'a' else node}: own pages; "
                f"peak of the process with pages it shares; weights and rows by `fedattn cost`",
                f"{network['uss_mib'][node]}; {network['peak_mib'][node]}; "
                f"{network['planned_mib'][node]} MiB",
                bars.get((name, node), ""),
                "`make bench-all`",
            )
    own = stored["network"]["uss_mib"]
    yield Row(
        "own pages of aggregator and gateway",
        f"{own['aggregator']}; {own['gateway']} MiB",
        "",
        "`make bench`",
    )


def soak_rows(seen: list[dict[str, Any]]) -> Iterator[Row]:
    """What a node holds after few and after many long questions."""
    early, late = seen[1], seen[-1]
    for node in ("a", "publisher"):
        first, last = early["mib"][node], late["mib"][node]
        yield Row(
            f"memory, {'contributor' if node == 'a' else node}, after {early['questions']} and "
            f"{late['questions']} questions over some 3,200 tokens, two plans in turn: own pages; "
            f"peak",
            f"{first['own']} and {last['own']}; {first['peak']} and {last['peak']} MiB",
            "flat",
            "`python -m benchmarks.soak`",
        )


def long_rows(prompts: list[dict[str, Any]]) -> Iterator[Row]:
    for one in prompts:
        yield Row(
            f"a prompt of {one['tokens']} tokens at one node, beside transformers' own attention: "
            f"memory above the weights, of it {one['rows_mib']:.0f} MiB rows; CPU time",
            f"{one['pieces_peak_mib']:.0f} for {one['transformers_peak_mib']:.0f} MiB; "
            f"{one['pieces_cpu_s']:.1f} for {one['transformers_cpu_s']:.1f} s",
            "",
            "`python -m benchmarks.long_prompts`",
        )


def link_rows(links: list[dict[str, Any]]) -> Iterator[Row]:
    for row in links:
        yield Row(
            f"time to first token over {row['link']}, codec `{row['codec']}`, against the larger "
            f"of {row['compute_s']:.2f} s without limits and {row['transfer_s']:.2f} s for "
            f"{row['busiest_node_bytes'] / 1e6:.1f} MB",
            f"{row['ratio']:.2f}",
            "1.3",
            "`make bench-links`",
        )


def sealing_rows(long: dict[str, Any], short: dict[str, Any]) -> Iterator[Row]:
    yield Row(
        f"CPU time of signing, verifying and sealing against that of the session, "
        f"{long['prompt_tokens']} ({short['prompt_tokens']}) tokens",
        f"{long['cpu_share']:.1%} ({short['cpu_share']:.1%})",
        "1 %",
        "`make bench-sealing`",
    )
    yield Row(
        "the same where members have not met within the last minute",
        f"{long['first_cpu_share']:.1%} ({short['first_cpu_share']:.1%})",
        "1 %",
        "`make bench-sealing`",
    )
    yield Row(
        f"bytes that sealing adds to a frame of {long['frame_bytes']:.0f} for one receiver",
        f"{long['bytes_a_frame']:.0f}",
        "100",
        "`make bench-sealing`",
    )


def decoding_rows(decoding: dict[str, Any]) -> Iterator[Row]:
    speed, quality = decoding["speed"], decoding["quality"]
    beside = f"float32 {speed['lean float32']:.0f}, int8 {speed['lean int8']:.0f}"
    llama = f"; llama.cpp {speed['llama.cpp']:.0f}" if "llama.cpp" in speed else ""
    yield Row(
        f"decoding on one thread, the blocks of the file as they are, against transformers' "
        f"`generate` in float32 (tokens/s: {speed['lean blocks']:.0f} and "
        f"{speed['generate']:.0f}; {beside}{llama})",
        f"{speed['lean blocks'] / speed['generate']:.1f}",
        "4; as llama.cpp",
        "`make bench-decoding`",
    )
    for form in ("int8", "blocks"):
        yield Row(
            f"what decoding in {form} costs: NLL of given answers; right answers of "
            f"{quality['num_cases']}; greedy tokens equal to float32's",
            f"{quality[f'nll_{form}']:.3f} for {quality['nll_float32']:.3f}; "
            f"{quality[f'right_{form}']} for {quality['right_float32']}; "
            f"{quality[f'same_tokens_{form}']:.0%}",
            "",
            "`make bench-decoding`",
        )


def concurrency_rows() -> Iterator[Row]:
    """Each number of questions at once, and answers beside long prompts."""
    concurrency, command = read("concurrency"), "`make bench-concurrency`"
    one = concurrency["at_once"]["1"]["together"]["decode_tokens_per_s"]
    for count, ways in concurrency["at_once"].items():
        if count == "1":
            continue
        together, row = ways["together"], ways["in a row"]
        llama = ways.get("llama.cpp")
        beside = f"; llama.cpp's server {llama['decode_tokens_per_s'] / one:.1f}" if llama else ""
        first, gap = together["first_token_ms"], together["between_tokens_ms"]
        firsts, gaps = row["first_token_ms"], row["between_tokens_ms"]
        yield Row(
            f"{count} questions at once: tokens a second while decoding, against one question "
            f"({one:.0f}{beside}); how far the paces of the answers are apart",
            f"{together['decode_tokens_per_s'] / one:.1f}; {together['decode_spread']:.0%}",
            "4; 20 %" if count == "8" else "",
            command,
        )
        yield Row(
            f"the same with prompts of {concurrency['settings']['tokens']} tokens: time to first "
            f"token, p50 and p95, at once (in a row); between tokens, p50 and p95",
            f"{first['p50'] / 1000:.1f} and {first['p95'] / 1000:.1f} s "
            f"({firsts['p50'] / 1000:.1f} and {firsts['p95'] / 1000:.1f} s); "
            f"{gap['p50']:.0f} and {gap['p95']:.0f} ms ({gaps['p50']:.0f} and {gaps['p95']:.0f})",
            "",
            command,
        )
    for count, ways in concurrency.get("long", {}).items():
        turns, free = ways["turns"]["between_tokens_ms"], ways["free"]["between_tokens_ms"]
        yield Row(
            f"between tokens of {count} answers while {concurrency['settings']['prompts']} prompts "
            f"of {concurrency['settings']['long']} tokens are prefilled, p50 and p95, in turns "
            f"(all at once)",
            f"{turns['p50']:.0f} and {turns['p95']:.0f} ms "
            f"({free['p50']:.0f} and {free['p95']:.0f} ms)",
            "",
            command,
        )


def load_rows(load: dict[str, Any]) -> Iterator[Row]:
    for row in load["relay"][2:]:
        yield Row(
            f"aggregator: MB relayed for each CPU second, frames of {row['frame_kb']:.0f} KB; a "
            f"gRPC server that only passes on does {row['bare_mb_per_cpu_s']:.0f}",
            f"{row['mb_per_cpu_s']:.0f}",
            "400",
            "`make bench-load`",
        )
    for count in dict.fromkeys(row["aggregators"] for row in load["rates"]):
        held = [row for row in load["rates"] if row["aggregators"] == count and not row["failures"]]
        if held:
            yield scheduled_row(max(held, key=lambda row: float(row["rate_per_s"])))
    for row in load["at_once"]:
        yield scheduled_row(row)
    for row in load["joined"]:
        yield Row(
            f"{row['nodes']} nodes joined at {row['aggregators']} of a federation: CPU of all "
            f"aggregators for each node and second, CPU of a join, memory of a node",
            f"{row['idle_cpu_us_per_node_s']:.0f} µs, {row['join_cpu_ms']:.1f} ms, "
            f"{row['kib_per_node']:.0f} KiB",
            "",
            "`make bench-load`",
        )
    memory = load["in_a_row"]
    yield Row(
        f"resident memory of an aggregator after {memory[0]['sessions']} and "
        f"{memory[-1]['sessions']} sessions in a row",
        f"{memory[0]['resident_mib']:.0f} and {memory[-1]['resident_mib']:.0f} MiB",
        "flat",
        "`make bench-load`",
    )


def scheduled_row(row: dict[str, Any]) -> Row:
    """Sessions that begin by a schedule."""
    return Row(
        f"{row['aggregators']} of a federation on one core, {row['rate_per_s']:g} sessions begun a "
        f"second, up to {row['most_open']} open, {row['contributors']} dummy contributors each: a "
        f"frame from when it is due to its receiver, median and 99th percentile; CPU of all "
        f"aggregators for a session; MB for each CPU second",
        f"{row['frame_p50_ms']:.0f} and {row['frame_p99_ms']:.0f} ms; "
        f"{row['cpu_ms_per_session']:.0f} ms; {row['mb_per_cpu_s']:.0f}",
        "",
        "`make bench-load`",
    )


def frontier_rows(frontier: list[dict[str, Any]]) -> Iterator[Row]:
    """What `auto` does to bytes and answers, a row a set."""
    for name in dict.fromkeys(row["set"] for row in frontier):
        whole, *others = (row for row in frontier if row["set"] == name)
        auto = next((row for row in others if row["way"].startswith("auto (")), None)
        if auto is None:
            continue
        mean, low, high = auto["nll"]
        yield Row(
            f"`auto`, {name}: KV bytes against `bf16` at every block; right answers beside those "
            f"of every block, {whole['cases']} paired cases, McNemar's p; change of the given "
            f"answer's NLL, 95 % interval ([more](plans.md#bytes-against-quality))",
            f"1/{auto['fewer_bytes']:.1f}; {auto['right']} to {whole['right']}, p "
            f"{auto['p_value']:.2f}; {mean:+.3f} [{low:+.3f}, {high:+.3f}]",
            "1/20; 98 %; 0.05",
            "`python -m benchmarks.frontier`",
            in_readme=name.startswith(("50 ", "200 ")),
        )
