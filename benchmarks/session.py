"""A session of four processes against one transformers prefill of the joined text, side by side.

    python -m benchmarks.session [--tokens 256] [--repeats 7] [--plan auto] [--json FILE]

Prints medians and their ratio:

    cpu      CPU seconds of all processes of the network for one query of one new token, against CPU
             seconds of one prefill; both on one thread a process; then the same session inside one
             process, without the network
    warm     the same for a second question over unchanged contexts (`cold` ones pass reuse: false)
    logits   largest difference of the first answer token's logits, in-process exchange against the
             one-model oracle and (plan `all`) against plain transformers, raw fp32 codec
    memory   proportional set size (PSS) of each participant, which share mapped weights; own pages
             (USS); the whole process's peak; what the cost model foretells without Python and torch
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from benchmarks.one_process import OneProcess
from fedattn.cli.network import LocalNetwork, NodePlan, local_network
from fedattn.cli.plans import choose
from fedattn.client import Client
from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.costs import session_bytes
from fedattn.core.limits import MAX_NODE_TOKENS
from fedattn.core.plans import shared_plan
from fedattn.core.share import Share
from fedattn.core.spans import build_layout
from fedattn.model.engine import open_engine
from fedattn.model.loading import load_tokenizer, read_sizes
from fedattn.model.prepare import prepare_model, weights_folder
from fedattn.model.prompt import PromptTokenizer
from fedattn.model.weights.choice import FLOAT32_WEIGHTS
from fedattn.research.oracle import oracle_logits
from fedattn.research.simulate import SimulationSettings, Simulator
from fedattn.research.tasks.cases import Case
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.fields import SamplingBody
from fedattn.rest.query import QueryBody

QUESTION = "What does every pump of each hall read, in degrees?"
CONTRIBUTORS = ("a", "b", "c")
PUBLISHER = "publisher"


def make_contexts(num_tokens: int) -> list[str]:
    """Texts of roughly equal length for three contributors and the publisher."""
    prompt = PromptTokenizer(load_tokenizer(prepare_model("default")))
    texts = []
    for node in (*CONTRIBUTORS, PUBLISHER):
        text, number = "", 0
        while len(prompt.context(text)) < num_tokens:
            number += 1
            text += f"Pump {number} of hall {node} reads {number * 37 % 90} degrees. "
        texts.append(text)
    return texts


def whole_texts(body: QueryBody) -> QueryBody:
    """The same question, for which no node leaves out passages of its text."""
    unbounded = {"node_tokens": MAX_NODE_TOKENS, "context_tokens": MAX_NODE_TOKENS}
    return body.model_copy(update={"share": Share.NOTHING, **unbounded})


def cpu_seconds(network: LocalNetwork) -> float:
    times = [psutil.Process(part.process.pid).cpu_times() for part in network.parts.values()]
    return float(sum(t.user + t.system for t in times))


def peak_mib(pid: int) -> int:
    """Most memory the process ever had resident, shared pages included."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


def time_pairs(
    network: LocalNetwork, body: QueryBody, plain: torch.nn.Module, repeats: int
) -> dict[str, list[float]]:
    """Query and prefill in turn, so that both see the same machine."""
    names = ("network_cpu_s", "prefill_cpu_s", "ttft_s", "warm_cpu_s", "warm_ttft_s")
    samples: dict[str, list[float]] = {name: [] for name in names}
    gateway = Client(network.gateway_url)
    cold, warm = (body.model_copy(update={"reuse": reuse}) for reuse in (False, True))
    answer = gateway.ask(cold)  # warm-up of both
    ids = torch.randint(100, 40_000, (1, answer.prompt_tokens))
    run_prefill(plain, ids)
    for _ in range(repeats):
        before = cpu_seconds(network)
        answer = gateway.ask(cold)
        samples["network_cpu_s"].append(cpu_seconds(network) - before)
        samples["ttft_s"].append(answer.totals.time_to_first_token_s)
        before = cpu_seconds(network)
        again = gateway.ask(warm)
        samples["warm_cpu_s"].append(cpu_seconds(network) - before)
        samples["warm_ttft_s"].append(again.totals.time_to_first_token_s)
        assert again.answer == answer.answer
        assert again.totals.kv_bytes == 0
        before = time.process_time()
        run_prefill(plain, ids)
        samples["prefill_cpu_s"].append(time.process_time() - before)
    samples["prompt_tokens"] = [answer.prompt_tokens]
    samples["kv_bytes"] = [answer.totals.kv_bytes]
    return samples


@torch.inference_mode()
def run_prefill(plain: torch.nn.Module, ids: torch.Tensor) -> None:
    plain(ids, use_cache=True, logits_to_keep=1)


def measure_network(texts: list[str], plan: str, repeats: int, weights: str) -> dict[str, Any]:
    """CPU and memory of the network, and of one prefill of as many tokens."""
    torch.set_num_threads(1)
    path = weights_folder(prepare_model("default"), FLOAT32_WEIGHTS)
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    body = whole_texts(
        QueryBody(question=QUESTION, plan=plan, sampling=SamplingBody(max_new_tokens=1))
    )
    with tempfile.TemporaryDirectory() as folder, local_network() as network:
        network.start_aggregator()
        for node_id, text in zip((*CONTRIBUTORS, PUBLISHER), texts, strict=True):
            context = Path(folder) / f"{node_id}.txt"
            context.write_text(text)
            network.start_participant(
                NodePlan(node_id=node_id, context=context), f"--weights={weights}"
            )
        network.start_gateway(PUBLISHER)
        list(network.wait_ready([*CONTRIBUTORS, PUBLISHER]))
        samples = time_pairs(network, body, plain, repeats)
        answer = Client(network.gateway_url).ask(body)
        memory = {
            name: psutil.Process(part.process.pid).memory_full_info()
            for name, part in network.parts.items()
        }
        peaks = {name: peak_mib(part.process.pid) for name, part in network.parts.items()}
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return {
        **medians,
        "bf16_bytes": bf16_bytes(answer),
        "cpu_ratio": medians["network_cpu_s"] / medians["prefill_cpu_s"],
        "warm_cpu_ratio": medians["warm_cpu_s"] / medians["prefill_cpu_s"],
        "warm_ttft_ratio": medians["warm_ttft_s"] / medians["ttft_s"],
        "pss_mib": {name: round(info.pss / 2**20) for name, info in memory.items()},
        "peak_mib": peaks,
        "planned_mib": {
            node.node_id: round(node.planned.peak_memory_bytes / 2**20)
            for node in answer.participants
            if node.planned is not None
        },
        "uss_mib": {name: round(info.uss / 2**20) for name, info in memory.items()},
    }


def bf16_bytes(answer: QueryAnswer) -> int:
    """What contributors would send with bf16 at every block, headers included."""
    prepared = prepare_model("default")
    shape = read_sizes(prepared).kv
    plan = shared_plan(range(shape.num_layers))
    *contributors, publisher = [(node.node_id, node.span_len) for node in answer.participants]
    spans = sum(length for _, length in (*contributors, publisher))
    layout = build_layout(
        num_layers=shape.num_layers,
        prefix_len=answer.prompt_tokens - spans,
        contributors=contributors,
        publisher=publisher,
        plans=plan,
        compression=Compression(codec=codec_by_name("bf16")),
    )
    return sum(member.total_up for member in session_bytes(layout, shape))


def measure_in_process(texts: list[str], plan: str, repeats: int) -> dict[str, float]:
    """The same session's mathematics in this process: no network, no other process."""
    prepared = prepare_model("default")
    engine = open_engine(prepared)
    floats = weights_folder(prepared, FLOAT32_WEIGHTS)
    plain = AutoModelForCausalLM.from_pretrained(floats, dtype=torch.float32)
    named = dict(zip((*CONTRIBUTORS, PUBLISHER), texts, strict=True))
    session = OneProcess.of(engine, named, QUESTION)
    layout = session.lay_out(plan, Compression(codec=codec_by_name("bf16")))
    ids = torch.randint(100, 40_000, (1, layout.num_tokens))
    ratios = []
    for _ in range(repeats + 1):
        begun = time.process_time()
        session.run(layout)
        middle = time.process_time()
        run_prefill(plain, ids)
        ratios.append((middle - begun) / (time.process_time() - middle))
    return {"cpu_ratio": statistics.median(ratios[1:])}


def measure_parity(texts: list[str]) -> dict[str, float]:
    """Largest differences of logits, raw fp32 codec."""
    prepared = prepare_model("default")
    engine = open_engine(prepared)
    model = engine.model
    simulator = Simulator(engine.prefiller, engine.tokenizer)
    floats = weights_folder(prepared, FLOAT32_WEIGHTS)
    plain = AutoModelForCausalLM.from_pretrained(floats, dtype=torch.float32)
    differences: dict[str, float] = {}
    case = Case(contexts=tuple(texts), question=QUESTION, answer="pump")
    for plan in ("all", "auto", "none", "8-22"):
        settings = SimulationSettings(
            plans=choose(plan, None, model.shape.num_layers, model.fingerprint).plans,
            compression=Compression(codec=codec_by_name("fp32")),
            max_new_tokens=1,
        )
        result = simulator.run_case(case, settings)
        trace = result.trace
        expected = oracle_logits(model, trace.layout, trace.token_ids, [])[-1]
        differences[f"{plan}_oracle"] = float((result.logits - expected).abs().max())
        if plan == "all":
            with torch.inference_mode():
                reference = plain(torch.tensor([trace.token_ids])).logits[0, -1]
            differences["all_transformers"] = float((result.logits - reference).abs().max())
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tokens", type=int, default=256, help="tokens a context, about")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--plan", default="auto")
    parser.add_argument("--weights", default="auto", help="of the nodes: float32, bfloat16")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    transformers_logging.disable_progress_bar()
    texts = make_contexts(arguments.tokens)
    result = {
        "network": measure_network(texts, arguments.plan, arguments.repeats, arguments.weights),
        "in_process": measure_in_process(texts, arguments.plan, arguments.repeats),
        "logits_difference": measure_parity(texts),
    }
    network = result["network"]
    print(
        f"{network['prompt_tokens']:.0f} tokens, plan {arguments.plan}, median of "
        f"{arguments.repeats}: network {network['network_cpu_s']:.2f} CPU s, one prefill "
        f"{network['prefill_cpu_s']:.2f} CPU s, ratio {network['cpu_ratio']:.2f}; "
        f"first token after {network['ttft_s']:.2f} s"
    )
    print(
        f"second question: no KV moved, {network['warm_cpu_s']:.2f} CPU s, ratio "
        f"{network['warm_cpu_ratio']:.2f}; first token after {network['warm_ttft_s']:.3f} s, "
        f"{network['warm_ttft_ratio']:.2f} of the first question's"
    )
    print(f"the same in one process: ratio {result['in_process']['cpu_ratio']:.2f}")
    print(f"largest difference of logits: {result['logits_difference']}")
    print(f"PSS, MiB: {network['pss_mib']}; own pages alone: {network['uss_mib']}")
    print(f"peaks, MiB: {network['peak_mib']}; cost model: {network['planned_mib']}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
