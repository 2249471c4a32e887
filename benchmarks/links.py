"""Time to first token over emulated edge links, against what physics allows, side by side.

    python -m benchmarks.links [--tokens 256] [--repeats 3] [--codec auto] [--json FILE]

Each node has a link of its own to the aggregator. Every repeat asks the same cold question over
each link and without limits. Per link:

    ttft      time to first token, seconds, by the publisher
    compute   the same without limits: all nodes share this machine's cores
    transfer  largest KV bytes that one node sends or receives, divided by the link's rate
    ratio     ttft / max(compute, transfer)

`--traces DIR` writes one more query of each link as a Chrome trace.

Needs root and iproute2.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.namespaces import EdgeLinks, Link, edge_links
from benchmarks.session import CONTRIBUTORS, PUBLISHER, QUESTION, make_contexts, whole_texts
from fedattn.cli.chrome_trace import chrome_trace
from fedattn.cli.network import LocalNetwork, NodePlan, local_network
from fedattn.client import Client
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.fields import CompressionBody, SamplingBody
from fedattn.rest.query import QueryBody

LINKS = (Link(20, 20), Link(100, 5), Link(1000, 1))
FREE = Link()


def start_nodes(network: LocalNetwork, links: EdgeLinks, texts: list[str], folder: Path) -> None:
    """One node a namespace, and the rest on the host."""
    network.start_aggregator()
    nodes = (*CONTRIBUTORS, PUBLISHER)
    for index, (node_id, text) in enumerate(zip(nodes, texts, strict=True)):
        context = folder / f"{node_id}.txt"
        context.write_text(text)
        network.start_participant(
            NodePlan(
                node_id=node_id,
                context=context,
                aggregator=links.aggregator(index),
                wrapper=links.wrapper(index),
            )
        )
    network.start_gateway(PUBLISHER)
    list(network.wait_ready(list(nodes)))


def busiest_bytes(answer: QueryAnswer) -> int:
    """Largest KV bytes that one node sends or receives."""
    return max(max(node.bytes_up, node.bytes_down) for node in answer.participants)


def measure(tokens: int, repeats: int, codec: str, traces: Path | None) -> list[dict[str, Any]]:
    """Figures of each link."""
    body = whole_texts(
        QueryBody(
            question=QUESTION,
            reuse=False,
            compression=CompressionBody(codec=codec),
            sampling=SamplingBody(max_new_tokens=1),
        )
    )
    traced = body.model_copy(update={"timeline": True})
    times: dict[Link, list[float]] = {link: [] for link in (FREE, *LINKS)}
    with tempfile.TemporaryDirectory() as folder, local_network() as network:
        port = network.aggregator_address.port
        with edge_links(port, len(CONTRIBUTORS) + 1) as links:
            start_nodes(network, links, make_contexts(tokens), Path(folder))
            gateway = Client(network.gateway_url)
            answer = gateway.ask(body)  # warm-up
            for _ in range(repeats):
                for link, samples in times.items():
                    links.set_link(link)
                    answer = gateway.ask(body)
                    samples.append(answer.totals.time_to_first_token_s)
            if traces is not None:
                for link in LINKS:
                    links.set_link(link)
                    trace = chrome_trace(gateway.ask(traced))
                    path = traces / f"{codec}-{link.rate_mbit_s:g}.json"
                    path.write_text(json.dumps(trace))
            links.set_link(FREE)
            network.stop()
    compute = statistics.median(times[FREE])
    size = busiest_bytes(answer)
    rows = []
    for link in LINKS:
        ttft, transfer = statistics.median(times[link]), size * 8 / (link.rate_mbit_s * 1e6)
        rows.append(
            {
                "link": str(link),
                "codec": codec,
                "prompt_tokens": answer.prompt_tokens,
                "busiest_node_bytes": size,
                "ttft_s": ttft,
                "compute_s": compute,
                "transfer_s": transfer,
                "ratio": ttft / max(compute, transfer),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tokens", type=int, default=256, help="tokens a context, about")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codec", action="append", help="several allowed; default bf16 and auto")
    parser.add_argument("--traces", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for codec in arguments.codec or ("bf16", "auto"):
        rows += measure(arguments.tokens, arguments.repeats, codec, arguments.traces)
    print("link               codec   MB busiest  ttft s  compute s  transfer s  ratio")
    for row in rows:
        print(
            f"{row['link']:18} {row['codec']:7} {row['busiest_node_bytes'] / 1e6:10.2f} "
            f"{row['ttft_s']:7.2f} {row['compute_s']:10.2f} {row['transfer_s']:11.2f} "
            f"{row['ratio']:6.2f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"links": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
