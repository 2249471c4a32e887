"""`fedattn demo`: a whole network on this machine, on the real model."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from rich.table import Table

from fedattn.cli.answers import show_report, stream_answer
from fedattn.cli.federation import Federation, GatewayTable, NodeTable
from fedattn.cli.terminal import PlainConsole, output, plain, plain_table
from fedattn.client import Client
from fedattn.core.printable import one_line
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.fields import SamplingBody
from fedattn.rest.query import QueryBody
from fedattn.runtime.extras import require_extras

CONTRIBUTORS = ("berths", "cranes", "customs")
PUBLISHER = "publisher"
QUESTION = "What does the ship Aurora carry, and at which pier does it lie?"
TRUTH = (r"\b300 boxes of tea\b", r"\bpier (of )?4\b")  # two facts, each known to one node alone
MAX_NEW_TOKENS = 32


def demo() -> None:
    """Start a network here, ask one question, compare with one model, stop."""
    require_extras("gateway", "participant")
    from fedattn.cli.local_start import started

    console = output()
    with demo_federation(PUBLISHER, 0) as federation, started(federation, console) as running:
        folders = {node.id: node.context for node in federation.node if node.context is not None}
        texts = {name: _read(folder) for name, folder in folders.items()}
        running.wait_ready(threading.Event())
        console.print()
        for name, folder in folders.items():
            console.print(f"{name} holds {_describe(folder, texts[name])}", soft_wrap=True)
        console.print(f"\n{PUBLISHER} asks: {QUESTION}\n")
        answer = _ask_together(console, running.network.gateway_url)
        with console.status("the same question to one model, alone and with all texts"):
            alone, joined = _one_model_answers(list(texts.values()))
        console.print()
        console.print(_comparison(alone, answer.answer, joined))
        console.print()
        show_report(answer, console)
    console.print("all stopped")


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
    with Client(gateway_url, retries=0) as client:
        return stream_answer(client, body, console, console)


@contextmanager
def demo_federation(publisher: str, port: int) -> Iterator[Federation]:
    """Three nodes with texts of a harbour, and one without that asks by default."""
    with as_file(files("fedattn.cli") / "demo_contexts") as folder:
        nodes = [NodeTable(id=name, context=folder / name) for name in CONTRIBUTORS]
        yield Federation(publisher=publisher, node=nodes, gateway=GatewayTable(port=port))


def _one_model_answers(texts: list[str]) -> tuple[str, str]:
    """What plain transformers answers from the question alone, and from all texts joined."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    from fedattn.model.loading import load_tokenizer
    from fedattn.model.prepare import prepare_model, weights_folder
    from fedattn.model.prompt import PromptTokenizer
    from fedattn.model.weights.choice import FLOAT32_WEIGHTS

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    prepared = prepare_model("default")
    tokenizer = load_tokenizer(prepared)
    prompt = PromptTokenizer(tokenizer)
    model = AutoModelForCausalLM.from_pretrained(
        weights_folder(prepared, FLOAT32_WEIGHTS), dtype=torch.float32
    )

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
