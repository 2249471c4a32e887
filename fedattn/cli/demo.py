"""`fedattn demo` and `fedattn up`: a whole network on this machine, on the real model."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fedattn.cli.ask import ask_streaming, report_table, totals_line
from fedattn.cli.network import LocalNetwork, NodePlan, local_network
from fedattn.rest.query import QueryBody, SamplingBody

CONTRIBUTORS = ("berths", "cranes", "customs")
PUBLISHER = "publisher"
QUESTION = "What does the ship Aurora carry, and at which pier does it lie?"
TRUTH = ("300 boxes of tea", "pier 4")  # two facts, each known to one node alone
MAX_NEW_TOKENS = 32


def demo_command() -> None:
    """Start, ask, compare, stop.

    Raises:
        FedAttnError: a part failed; says which.
    """
    console = Console(highlight=False)
    with _demo_contexts() as contexts, _running(console, contexts, 0) as network:
        for name, path in contexts.items():
            console.print(f"[bold]{name}[/] knows: {path.read_text().strip()}", soft_wrap=True)
        console.print(f"\n[bold]{PUBLISHER}[/] asks: {QUESTION}\n")
        sampling = SamplingBody(max_new_tokens=MAX_NEW_TOKENS)
        body = QueryBody(question=QUESTION, sampling=sampling)
        console.print("[dim]together, over the network:[/]")
        answer = ask_streaming(network.gateway_url, body, console)
        with console.status("the same question to one model, alone and with all texts"):
            alone, joined = _one_model_answers([path.read_text() for path in contexts.values()])
        console.print()
        console.print(_comparison(alone, answer.answer, joined))
        console.print()
        console.print(report_table(answer))
        console.print(totals_line(answer))
    console.print("all stopped")


def up_command(port: int) -> None:
    """Start the network and keep it until Ctrl-C or SIGTERM.

    Raises:
        FedAttnError: a part failed; says which.
    """
    console = Console(highlight=False)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with _demo_contexts() as contexts, _running(console, contexts, port) as network:
        console.print(f"gateway on {network.gateway_url} (interactive API: /docs), Ctrl-C stops")
        hint = f'try: .venv/bin/fedattn ask --gateway {network.gateway_url} "{QUESTION}"'
        console.print(hint, soft_wrap=True)
        while not stopping.wait(0.5):
            for part in network.parts.values():
                part.require_alive()
    console.print("all stopped")


@contextmanager
def _demo_contexts() -> Iterator[dict[str, Path]]:
    with as_file(files("fedattn.cli") / "demo_contexts") as folder:
        yield {name: folder / f"{name}.txt" for name in CONTRIBUTORS}


@contextmanager
def _running(console: Console, contexts: dict[str, Path], port: int) -> Iterator[LocalNetwork]:
    """The demo's network, ready for queries."""
    begun = time.monotonic()
    nodes = [NodePlan(node_id=name, context=path) for name, path in contexts.items()]
    nodes.append(NodePlan(node_id=PUBLISHER))
    names = [node.node_id for node in nodes]
    with local_network(port) as network:
        console.print(f"starting aggregator, {', '.join(names)} and gateway, a process each")
        network.start_aggregator()
        for node in nodes:
            network.start_participant(node)
        network.start_gateway([PUBLISHER, *contexts])
        with console.status("loading the model in every node") as status:
            waiting = set(names)
            for name in network.wait_ready(names):
                waiting.discard(name)
                console.print(f"[dim]{time.monotonic() - begun:5.1f} s[/]  {name} has joined")
                status.update(f"waiting for {', '.join(sorted(waiting))}")
        console.print()
        yield network


def _one_model_answers(texts: list[str]) -> tuple[str, str]:
    """What plain transformers answers from the question alone, and from all texts joined."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    from fedattn.model.loading import load_tokenizer
    from fedattn.model.prepare import prepare_model
    from fedattn.model.prompt import PromptTokenizer

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    prepared = prepare_model("default")
    tokenizer = load_tokenizer(prepared)
    prompt = PromptTokenizer(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(prepared.path, dtype=torch.float32)

    def answer(contexts: list[str]) -> str:
        spans = [token for text in contexts for token in prompt.context(text)]
        ids = torch.tensor([[*prompt.prefix(), *spans, *prompt.question(QUESTION)]])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
        )
        return prompt.decode(output[0, ids.shape[1] :].tolist())

    return answer([]), answer(texts)


def _comparison(alone: str, together: str, joined: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("who", "answer", "right?"):
        table.add_column(title)
    rows = {
        "the publisher alone": alone,
        "together, no text shared": together,
        "one model with all texts": joined,
    }
    for who, text in rows.items():
        is_right = all(fact in text for fact in TRUTH)
        table.add_row(who, text, "[green]yes[/]" if is_right else "[red]no[/]")
    return table
