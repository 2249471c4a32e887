"""Many long questions to one network of the embedded model: does anybody grow?

    python -m benchmarks.soak [--questions 100] [--tokens 800] [--every 10] [--memory BYTES]
                              [--json FILE]

Real services, one process each: three contributors and a publisher, a text of so many tokens each,
two plans in turn, a new question each time. Every so often prints for each participant

    resident    all its pages, mapped weights too, MiB
    own         those that no other process shares (USS), MiB
    peak        most that was ever resident, MiB
"""

import argparse
import json
import tempfile
from pathlib import Path

import psutil

from benchmarks.session import CONTRIBUTORS, PUBLISHER, make_contexts, peak_mib, whole_texts
from fedattn.cli.network import LocalNetwork, NodePlan, local_network
from fedattn.client import Client
from fedattn.rest.fields import SamplingBody
from fedattn.rest.query import QueryBody

NODES = (*CONTRIBUTORS, PUBLISHER)
PLANS = ("auto", "1-29")
Sample = dict[str, dict[str, int]]
"""By node: MiB by name."""


def look(network: LocalNetwork) -> Sample:
    """What each participant takes now."""
    sample: Sample = {}
    for node_id in NODES:
        pid = network.parts[node_id].process.pid
        info = psutil.Process(pid).memory_full_info()
        sample[node_id] = {
            "resident": info.rss >> 20,
            "own": info.uss >> 20,
            "peak": peak_mib(pid),
        }
    return sample


def soak(texts: list[str], questions: int, every: int, memory: int) -> list[tuple[int, Sample]]:
    """Ask so many questions; returns what was seen, by the number of questions."""
    seen: list[tuple[int, Sample]] = []
    with tempfile.TemporaryDirectory() as folder, local_network() as network:
        network.start_aggregator()
        for node_id, text in zip(NODES, texts, strict=True):
            context = Path(folder) / f"{node_id}.txt"
            context.write_text(text)
            network.start_participant(
                NodePlan(node_id=node_id, context=context), f"--memory={memory}"
            )
        network.start_gateway(PUBLISHER)
        list(network.wait_ready(list(NODES)))
        gateway = Client(network.gateway_url)
        for number in range(questions + 1):
            if number % every == 0:
                seen.append((number, look(network)))
                tell(number, seen[-1][1])
            if number < questions:
                body = QueryBody(
                    question=f"What does pump {number} read?",
                    plan=PLANS[number % len(PLANS)],
                    sampling=SamplingBody(max_new_tokens=8),
                )
                gateway.ask(whole_texts(body))
    return seen


def tell(number: int, sample: Sample) -> None:
    words = [
        f"{node} {mib['resident']} / {mib['own']} / {mib['peak']}" for node, mib in sample.items()
    ]
    print(f"{number:4} questions, MiB resident / own / peak: {'; '.join(words)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=800, help="of each text, about")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--memory", type=int, default=0, help="as of a participant")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    texts = make_contexts(arguments.tokens)
    seen = soak(texts, arguments.questions, arguments.every, arguments.memory)
    if arguments.json:
        content = [{"questions": number, "mib": sample} for number, sample in seen]
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
