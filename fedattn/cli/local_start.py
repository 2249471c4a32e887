"""A federation's processes on this machine: started, shown while they start, and watched."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

from rich.console import RenderableType
from rich.live import Live

from fedattn.cli.federation import Federation, NodeTable
from fedattn.cli.log_lines import JSON_LOG, LogTail
from fedattn.cli.network import LocalNetwork, NodePlan, local_network
from fedattn.cli.node_watch import NodeWatch, describe_skipped
from fedattn.cli.terminal import PlainConsole, plain, plain_table
from fedattn.core.contexts import SkipReason
from fedattn.core.errors import (
    AggregatorUnavailableError,
    ConfigurationError,
    GatewayUnavailableError,
    PublisherUnavailableError,
    UnavailableError,
)
from fedattn.core.node_id import AGGREGATOR, GATEWAY
from fedattn.runtime.state import PASSAGES_FILE
from fedattn.texts.checking import check_context
from fedattn.texts.listing import SUFFIXES, Listing

_POLL_S = 0.2
_PATIENCE_S = 900.0
"""Longest wait in which no part says anything new: loading a large model takes minutes."""
_STEP_WIDTH = 24
_OWN_PLACES = ("id", "context", "model")
_LOST: Mapping[str, type[UnavailableError]] = {
    AGGREGATOR: AggregatorUnavailableError,
    GATEWAY: GatewayUnavailableError,
}
"""Parts without which nothing goes on."""


@dataclass(slots=True, kw_only=True)
class LocalFederation:
    """A started network, and what its nodes have told of themselves.

    Attributes:
        console: where news go.
        network: the processes.
        nodes: all, the default publisher first.
        watches: one a node that lives, by its id.
        gateway_log: of the gateway.
    """

    console: PlainConsole
    network: LocalNetwork
    nodes: Sequence[NodeTable]
    watches: dict[str, NodeWatch] = field(default_factory=dict)
    gateway_log: LogTail
    _is_serving: bool = False
    _begun: float = field(default_factory=time.monotonic)

    def wait_ready(self, stopping: threading.Event) -> bool:
        """Show how the nodes start, until all have joined; False if told to stop before.

        Raises:
            ConfigurationError: a part has ended, or says nothing any more; with its log's tail.
        """
        heard = time.monotonic()
        live = Live(console=self.console, get_renderable=self._table, transient=True)
        with live if self.console.is_terminal else nullcontext():
            while not self._is_ready():
                for part in self.network.parts.values():
                    part.require_alive()
                if self.tell(with_steps=not self.console.is_terminal):
                    heard = time.monotonic()
                if time.monotonic() - heard > _PATIENCE_S:
                    raise self._silent()
                if stopping.wait(_POLL_S):
                    return False
        self.tell(with_steps=not self.console.is_terminal)
        return True

    def tell(self, *, with_steps: bool = True) -> bool:
        """Print what is new; whether there was anything. Without steps, warnings alone."""
        is_any = False
        for watch in self.watches.values():
            for news in watch.poll():
                is_any = True
                if news.is_warning or with_steps:
                    self.say(f"{watch.node_id} {news.text}", "yellow" if news.is_warning else "")
        return is_any

    def say(self, text: str, style: str = "") -> None:
        """Print a line with its time since the start."""
        self.console.print(plain(f"{time.monotonic() - self._begun:6.1f} s", "dim"), end="  ")
        self.console.print(plain(text, style), soft_wrap=True)

    def say_who_ended(self) -> None:
        """Tell of nodes that have ended; the others go on without them.

        Raises:
            UnavailableError: aggregator or gateway has ended, or no node is left.
        """
        for part in list(self.network.parts.values()):
            ending = part.ending
            if not ending:
                continue
            if part.name in _LOST or len(self.watches) == 1:
                part.require_alive(_LOST.get(part.name, PublisherUnavailableError))
            del self.network.parts[part.name], self.watches[part.name]
            self.say(f"{part.name} {ending}; its log ended so:", "red")
            self.console.print(plain(part.log_tail()), soft_wrap=True)
            self.console.print("the others go on without it", style="yellow")

    def _is_ready(self) -> bool:
        self._is_serving = self._is_serving or any(
            event.get("event") == "serving" for event in self.gateway_log.new_events()
        )
        return self._is_serving and all(watch.has_joined for watch in self.watches.values())

    def _table(self) -> RenderableType:
        """How far each node is."""
        table = plain_table("node", "does", right=("files", "passages"))
        table.columns[1].min_width = _STEP_WIDTH  # so that the others stand still
        table.caption = plain(f"{time.monotonic() - self._begun:.0f} s", "dim")
        table.caption_justify = "left"
        for watch in self.watches.values():
            counts = [str(count or "") for count in (watch.num_files, watch.num_passages)]
            table.add_row(watch.node_id, watch.step, *counts)
        return table

    def _silent(self) -> ConfigurationError:
        late = [watch.node_id for watch in self.watches.values() if not watch.has_joined]
        part = self.network.parts[late[0] if late else GATEWAY]
        return ConfigurationError(
            f"{part.name} was not ready, and nothing happened for {_PATIENCE_S:g} s; the end of "
            f"its log:\n{part.log_tail()}"
        )


@contextmanager
def started(federation: Federation, console: PlainConsole) -> Iterator[LocalFederation]:
    """A process each for aggregator, nodes and gateway, which start; stopped at the end.

    Raises:
        ConfigurationError: the port is taken, or a text cannot be read; nothing has started then.
    """
    nodes = federation.nodes()
    found = {node.name: check_context(node.context, node.context_encoding) for node in nodes}
    with local_network(federation.gateway.port, state=federation.state) as network:
        running = LocalFederation(
            console=console,
            network=network,
            nodes=nodes,
            gateway_log=LogTail(network.log_dir / f"{GATEWAY}.log"),
        )
        names = ", ".join(node.name for node in nodes)
        running.say(f"starting aggregator, {names} and gateway, a process each")
        network.start_aggregator(*federation.aggregator.flags(), JSON_LOG)
        for node in nodes:
            running.watches[node.name] = _start(network, federation, node, found[node.name])
            _say_found(running, node, found[node.name])
        network.start_gateway(nodes[0].name, *federation.gateway.flags("port"), JSON_LOG)
        yield running


def _start(
    network: LocalNetwork, federation: Federation, node: NodeTable, found: Listing
) -> NodeWatch:
    flags = node.flags(*_OWN_PLACES)
    if federation.system_prompt is not None:
        flags.append(f"--system-prompt={federation.system_prompt}")
    plan = NodePlan(node_id=node.name, context=node.context, model=node.model or federation.model)
    part = network.start_participant(plan, *flags, JSON_LOG)
    return NodeWatch(
        node_id=node.name,
        log=LogTail(part.log_path),
        index_path=network.state_dir / node.name / PASSAGES_FILE,
        skipped={file.name: file.reason.words for file in found.skipped},
    )


def _say_found(running: LocalFederation, node: NodeTable, found: Listing) -> None:
    """What a node will read, and at once what it will not."""
    if node.context is None:
        running.say(f"{node.name} holds no text")
        return
    files = "1 file" if len(found.files) == 1 else f"{len(found.files)} files"
    running.say(f"{node.name} holds {node.context}, {files}")
    if not found.files and not found.skipped:
        running.say(f"{node.name} has nothing to give: the folder is empty", "yellow")
    if found.skipped:
        reasons = {file.name: file.reason.words for file in found.skipped}
        running.say(f"{node.name} does not read {describe_skipped(reasons)}", "yellow")
    if any(file.reason is SkipReason.UNKNOWN_KIND for file in found.skipped):
        running.say(f"known kinds of text: {' '.join(sorted(SUFFIXES))}", "yellow")
