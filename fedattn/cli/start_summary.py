"""What a network on this machine is, once it is there: who has what, and how to ask."""

import shlex

from rich.table import Table
from rich.text import Text

from fedattn.cli.federation import Federation
from fedattn.cli.local_start import LocalFederation
from fedattn.cli.node_watch import NodeWatch, describe_skipped
from fedattn.cli.terminal import plain, plain_table
from fedattn.client.connection import DEFAULT_GATEWAY


def show_start(running: LocalFederation, federation: Federation) -> None:
    """Print who takes part with what, and where to ask."""
    console, url = running.console, running.network.gateway_url
    console.print()
    console.print(_nodes(running))
    console.print()
    console.print(f"page: {url}/   REST: {url}/docs", soft_wrap=True)
    words = ["fedattn", "ask", *([] if url == DEFAULT_GATEWAY else ["--gateway", url])]
    console.print(f'ask:  {shlex.join(words)} "your question"', soft_wrap=True)
    if federation.gateway.keys is not None:
        console.print(
            f"      with FEDATTN_API_KEY set to a key of {federation.gateway.keys}", soft_wrap=True
        )
    network = running.network
    console.print(f"logs: {network.log_dir}, a file each", soft_wrap=True)
    console.print(f"state: {network.state_dir}, {_state_words(federation)}", soft_wrap=True)
    console.print("stop: Ctrl-C")


def _state_words(federation: Federation) -> str:
    """What the state is for, and how long it stays."""
    use = "a folder each, for --state of fedattn passages and approvals"
    return use if federation.state is not None else f"{use}; goes at the end"


def _nodes(running: LocalFederation) -> Table:
    """A row a node; numbers of tokens are estimates for long texts."""
    table = plain_table("node", "text", "not read", right=("files", "passages", "tokens"))
    for node in running.nodes:
        watch = running.watches[node.name]
        if node.context is None:
            table.add_row(node.name, plain("none, asks", "dim"))
            continue
        counts = (watch.num_files, watch.num_passages, watch.num_tokens)
        table.add_row(node.name, str(node.context), _left_out(watch), *map(str, counts))
    return table


def _left_out(watch: NodeWatch) -> Text:
    """What gives nothing, and why."""
    skipped = describe_skipped(watch.skipped)
    if watch.is_slow:
        return plain("; ".join(["still reading", *([skipped] if skipped else [])]), "yellow")
    if not watch.num_passages:
        return plain(f"nothing to give: {skipped or 'no files'}", "red")
    return plain(skipped, "yellow")
