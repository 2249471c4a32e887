"""`fedattn demo` and `fedattn up`: a whole network on this machine, on the real model."""

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedattn.cli.answers import show_report, stream_answer
from fedattn.cli.network import LocalNetwork, NodePlan, local_network
from fedattn.cli.terminal import PlainConsole, output, plain, plain_table
from fedattn.core.errors import InvalidRequestError
from fedattn.core.node_id import check_node_id
from fedattn.core.printable import one_line
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.client import GatewayClient
from fedattn.rest.query import QueryBody, SamplingBody
from fedattn.runtime.extras import require_extras

CONTRIBUTORS = ("berths", "cranes", "customs")
PUBLISHER = "publisher"
QUESTION = "What does the ship Aurora carry, and at which pier does it lie?"
TRUTH = (r"\b300 boxes of tea\b", r"\bpier (of )?4\b")  # two facts, each known to one node alone
MAX_NEW_TOKENS = 32
MAX_NODES = 16
"""Processes with a model each, on one machine."""


def demo() -> None:
    """Start a network here, ask one question, compare with one model, stop."""
    require_extras("gateway", "participant")
    console = output()
    with _demo_contexts() as contexts, _running(console, contexts, 0) as network:
        texts = {name: _read(folder) for name, folder in contexts.items()}
        for name, folder in contexts.items():
            console.print(f"{name} holds {_describe(folder, texts[name])}", soft_wrap=True)
        console.print(f"\n{PUBLISHER} asks: {QUESTION}\n")
        answer = _ask_together(console, network.gateway_url)
        with console.status("the same question to one model, alone and with all texts"):
            alone, joined = _one_model_answers(list(texts.values()))
        console.print()
        console.print(_comparison(alone, answer.answer, joined))
        console.print()
        show_report(answer, console)
    console.print("all stopped")


def up(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the gateway; 0 for any that is free.")
    ] = 8000,
    model: Annotated[
        str, typer.Option(help="Of every node: default, a folder, a .gguf file or a hub id.")
    ] = "default",
    texts: Annotated[
        Path | None,
        typer.Option(help="A folder with a folder or file a node; default: the demo's texts."),
    ] = None,
) -> None:
    """Start a network on this machine and keep it running until Ctrl-C."""
    require_extras("gateway", "participant")
    console = output()
    chosen = None if texts is None else find_texts(texts)
    _prepare(console, model)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    with ExitStack() as stack:
        contexts = stack.enter_context(_demo_contexts()) if chosen is None else chosen
        network = stack.enter_context(_running(console, contexts, port, model))
        console.print(f"gateway on {network.gateway_url} (interactive API: /docs), Ctrl-C stops")
        question = QUESTION if chosen is None else "..."
        hint = f'try: fedattn ask --gateway {network.gateway_url} "{question}"'
        console.print(hint, soft_wrap=True)
        while not stopping.wait(0.5):
            for part in network.parts.values():
                part.require_alive()
    console.print("all stopped")


def find_texts(folder: Path) -> dict[str, Path]:
    """The private text of each node: what lies in a folder, by name without suffix.

    Raises:
        InvalidRequestError: there are too few or too many, or a name is no id of a node.
    """
    if not folder.is_dir():
        raise InvalidRequestError(f"--texts {folder}: no such folder; expected one with texts")
    found = {path.stem: path for path in sorted(folder.iterdir()) if path.name[0] != "."}
    if not 1 <= len(found) <= MAX_NODES or PUBLISHER in found:
        raise InvalidRequestError(
            f"--texts {folder}: expected 1 to {MAX_NODES} folders or files, none of them named "
            f"{PUBLISHER}, got {len(found)}"
        )
    for name in found:
        check_node_id(name)
    return found


def _prepare(console: PlainConsole, model: str) -> None:
    """Make the model ready once, before every node wants it."""
    from fedattn.model.prepare import prepare_model

    prepare_model(model, progress=console.print)


def _read(folder: Path) -> str:
    """All texts of a node, as one model would have to be given them."""
    return "\n\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.iterdir()))


def _describe(folder: Path, text: str) -> str:
    names = ", ".join(path.name for path in sorted(folder.iterdir()))
    return f"{len(text.split())} words in {names}"


def _ask_together(console: PlainConsole, gateway_url: str) -> QueryAnswer:
    console.print("together, over the network:", style="dim")
    sampling = SamplingBody(max_new_tokens=MAX_NEW_TOKENS)
    body = QueryBody(question=QUESTION, sampling=sampling)
    return stream_answer(GatewayClient(gateway_url), body, console)


@contextmanager
def _demo_contexts() -> Iterator[dict[str, Path]]:
    with as_file(files("fedattn.cli") / "demo_contexts") as folder:
        yield {name: folder / name for name in CONTRIBUTORS}


@contextmanager
def _running(
    console: PlainConsole, contexts: dict[str, Path], port: int, model: str = "default"
) -> Iterator[LocalNetwork]:
    """A node a context and a publisher without one, ready for queries."""
    begun = time.monotonic()
    nodes = [NodePlan(node_id=name, context=path, model=model) for name, path in contexts.items()]
    nodes.append(NodePlan(node_id=PUBLISHER, model=model))
    names = [node.node_id for node in nodes]
    with local_network(port) as network:
        console.print(f"starting aggregator, {', '.join(names)} and gateway, a process each")
        network.start_aggregator()
        for node in nodes:
            network.start_participant(node)
        network.start_gateway(PUBLISHER)
        with console.status("loading the model in every node") as status:
            waiting = set(names)
            for name in network.wait_ready(names):
                waiting.discard(name)
                console.print(plain(f"{time.monotonic() - begun:5.1f} s", "dim"), end="  ")
                console.print(f"{name} has joined")
                if waiting:
                    status.update(plain(f"waiting for {', '.join(sorted(waiting))}"))
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
    table = plain_table("who", "answer", "right?")
    rows = {
        "the publisher alone": alone,
        "together, no text shared": together,
        "one model with all texts": joined,
    }
    for who, text in rows.items():
        is_right = all(re.search(fact, text) for fact in TRUTH)
        table.add_row(
            who, one_line(text), plain("yes", "green") if is_right else plain("no", "red")
        )
    return table
