"""Sending rows against asking for them, over emulated edge links, side by side in one run.

    python -m benchmarks.exchanges [--tokens 200 2000] [--repeats 3] [--rates 20 100 1000]
                                   [--asked-plan auto] [--json FILE]

Two contributors and a publisher, each behind a link of its own. Every repeat asks over each link
and in each exchange, cold and again with what the nodes have kept. Medians:

    cold, again   time to first token, seconds, by the publisher
    tokens/s      while decoding
    KiB           frames, or queries and parts, each counted once, of the question asked again
    trips         pieces of queries: round trips from publisher to contributor
    held          tokens of the answer that one pass yields

Needs root and iproute2.
"""

import argparse
import json
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.links import LINKS
from benchmarks.namespaces import EdgeLinks, Link, edge_links
from benchmarks.session import QUESTION, make_contexts, whole_texts
from fedattn.cli.network import LocalNetwork, NodePlan, local_network
from fedattn.client import Client
from fedattn.core.request import Exchange
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.fields import SamplingBody
from fedattn.rest.query import QueryBody

CONTRIBUTORS, PUBLISHER = ("a", "b"), "publisher"
EXCHANGES = (Exchange.ROWS, Exchange.ASK)
NUM_NEW_TOKENS = 24


def start_nodes(network: LocalNetwork, links: EdgeLinks, texts: list[str], folder: Path) -> None:
    """One node a namespace, and the rest on the host; the publisher has no text."""
    network.start_aggregator()
    for index, node_id in enumerate((*CONTRIBUTORS, PUBLISHER)):
        context = None
        if node_id != PUBLISHER:
            context = folder / f"{node_id}.txt"
            context.write_text(texts[index])
        network.start_participant(
            NodePlan(
                node_id=node_id,
                context=context,
                aggregator=links.aggregator(index),
                wrapper=links.wrapper(index),
            )
        )
    network.start_gateway(PUBLISHER)
    list(network.wait_ready([*CONTRIBUTORS, PUBLISHER]))


def query_of(exchange: Exchange, asked_plan: str | None, *, reuse: bool) -> QueryBody:
    body = QueryBody(
        question=QUESTION,
        exchange=exchange,
        asked_plan=asked_plan,
        reuse=reuse,
        independent=True,
        deadline_s=600,
        sampling=SamplingBody(max_new_tokens=NUM_NEW_TOKENS),
    )
    return whole_texts(body)


def measure(
    tokens: int, repeats: int, links_to_try: list[Link], asked_plan: str | None
) -> list[dict[str, Any]]:
    """Figures of each link and exchange, for texts of so many tokens."""
    cold: dict[tuple[Link, Exchange], list[QueryAnswer]] = defaultdict(list)
    again: dict[tuple[Link, Exchange], list[QueryAnswer]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, local_network() as network:
        port = network.aggregator_address.port
        with edge_links(port, len(CONTRIBUTORS) + 1) as links:
            start_nodes(network, links, make_contexts(tokens), Path(folder))
            gateway = Client(network.gateway_url)
            for exchange in EXCHANGES:
                warm = query_of(exchange, asked_plan, reuse=True)
                gateway.ask(warm)  # and fills what nodes keep
            for _ in range(repeats):
                for link in links_to_try:
                    links.set_link(link)
                    for exchange in EXCHANGES:
                        for reuse, answers in ((False, cold), (True, again)):
                            body = query_of(exchange, asked_plan, reuse=reuse)
                            answers[link, exchange].append(gateway.ask(body))
            links.set_link(Link())
            network.stop()
    return [
        {"tokens": tokens, "link": str(link), "exchange": exchange.value}
        | summarize(cold[link, exchange], again[link, exchange])
        for link in links_to_try
        for exchange in EXCHANGES
    ]


def summarize(cold: list[QueryAnswer], again: list[QueryAnswer]) -> dict[str, Any]:
    """Medians of one link and exchange."""
    last = again[-1]
    asked = last.asked
    return {
        "prompt_tokens": last.prompt_tokens,
        "ttft_cold_s": statistics.median(one.totals.time_to_first_token_s for one in cold),
        "ttft_again_s": statistics.median(one.totals.time_to_first_token_s for one in again),
        "tokens_per_s": statistics.median(one.totals.tokens_per_s or 0.0 for one in again),
        "bytes_cold": cold[-1].totals.kv_bytes + cold[-1].totals.asked_bytes,
        "bytes_again": last.totals.kv_bytes + last.totals.asked_bytes,
        "round_trips": max(one.round_trips for one in last.participants),
        "tokens_a_pass": last.num_tokens / asked.passes if asked and asked.passes else None,
        "answer": last.answer,
    }


def show(rows: list[dict[str, Any]]) -> None:
    """One line each."""
    print(
        "tokens  link               exchange   cold  again  tokens/s      KiB   again  trips  held"
    )
    for row in rows:
        held = row["tokens_a_pass"]
        print(
            f"{row['tokens']:6}  {row['link']:18} {row['exchange']:8} {row['ttft_cold_s']:6.2f} "
            f"{row['ttft_again_s']:6.2f} {row['tokens_per_s']:9.1f} "
            f"{row['bytes_cold'] / 1024:8.0f} {row['bytes_again'] / 1024:7.0f} "
            f"{row['round_trips']:6} {'' if held is None else f'{held:5.2f}'}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tokens", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--repeats", type=int, default=3)
    rates = [link.rate_mbit_s for link in LINKS]
    parser.add_argument("--rates", type=float, nargs="+", default=rates, help="links, by Mbit/s")
    parser.add_argument("--asked-plan", help="as of a query")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    links = [link for link in LINKS if link.rate_mbit_s in arguments.rates]
    rows: list[dict[str, Any]] = []
    for tokens in arguments.tokens:
        rows += measure(tokens, arguments.repeats, links, arguments.asked_plan)
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps({"exchanges": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
