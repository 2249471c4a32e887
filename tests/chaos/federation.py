"""The federation that is struck: real processes, each behind a link of its own."""

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from fedattn.cli.network import LocalNetwork, NodePlan, free_port, local_network
from fedattn.core.address import HostPort
from fedattn.core.node_id import AGGREGATOR, GATEWAY, NATS
from tests.chaos.directory import all_know, start_nats
from tests.chaos.links import CLEAR, LOOPBACK, Link, Links, Weather
from tests.chaos.stepped import set_step

PUBLISHER = "office"
TEXTS = {
    "clinic": "Clinic note. Patient 31 is allergic to penicillin, and was told so in May.",
    "pharmacy": "Pharmacy list. The passcode of the store room is 4417; it changes in June.",
    "ward": "Ward plan. Bed 12 is free from Monday, bed 14 from Thursday on.",
    PUBLISHER: "Office memo. Who asks about beds is sent to the ward.",
}
NODES = sorted(TEXTS)
OTHER_TEXT = (
    "Clinic note, second edition. Patient 31 may have penicillin after all, says the letter."
)
BUSY = (
    "fedattn_aggregator_sessions_open",
    "fedattn_participant_sessions_running",
    "fedattn_gateway_queries_running",
)
"""Gauges that are 0 while nobody asks anything."""
SESSIONS, TUNNELS = "fedattn_aggregator_sessions_open", "fedattn_aggregator_tunnels_open"
_PAUSES = ("--first-pause-s=0.5", "--max-pause-s=1")
"""A node that was struck in one cell is to take part in the next."""
_START_S = 120.0
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds by the kernel's word."""

    files: int
    threads: int
    resident_mib: int


@dataclass(slots=True, kw_only=True)
class Federation:
    """Aggregators, NATS between them, nodes, a gateway; what is killed can be started again.

    Attributes:
        ways: of each node and of the gateway, to all aggregators.
        uplinks: of each aggregator to NATS; none if there is one aggregator only.
        nats_port: that NATS listens on.
        pauses: flags of aggregators, of how long they let nodes rest.
    """

    network: LocalNetwork
    addresses: dict[str, HostPort]
    ways: dict[str, Link]
    uplinks: dict[str, Link]
    nats_port: int
    model: Path
    folder: Path
    pauses: tuple[str, ...]
    metrics: dict[str, int] = field(default_factory=dict)

    @property
    def aggregators(self) -> list[str]:
        """Names of the aggregators."""
        return list(self.addresses)

    @property
    def services(self) -> list[str]:
        """Names of all processes."""
        return [*([NATS] if self.uplinks else []), *self.aggregators, *NODES, GATEWAY]

    @property
    def gateway_url(self) -> str:
        return self.network.gateway_url

    def words_for(self, name: str) -> tuple[str, ...]:
        """What messages may call a service."""
        address = self.addresses.get(name)
        return (name,) if address is None else (name, str(address))

    def start(self, name: str) -> None:
        """Start one service, again if it was killed."""
        if name == NATS:
            start_nats(self.network, self.folder, self.nats_port)
            return
        port = self.metrics.setdefault(name, free_port())
        flags: tuple[str, ...] = (f"--metrics={LOOPBACK}:{port}", "--log-format=json")
        if name in self.addresses:
            address = self.addresses[name]
            flags = (*flags, *self.pauses, *self._membership(name))
            self.network.start_aggregator(*flags, name=name, address=address)
            return
        flags = (*flags, f"--proxy=http://{self.ways[name].address}")
        if name == GATEWAY:
            self.network.start_gateway(PUBLISHER, *flags, aggregator=self._addresses_for(name))
        else:
            self.network.start_participant(self._plan(name), *flags)

    def _membership(self, name: str) -> tuple[str, ...]:
        if not self.uplinks:
            return ()
        uplink = f"nats://{self.uplinks[name].address}"
        return f"--name={name}", f"--advertise={self.addresses[name]}", f"--nats={uplink}"

    def _addresses_for(self, name: str) -> str:
        """All aggregators; which comes first differs, so that not all begin at the same one."""
        all_ = list(map(str, self.addresses.values()))
        first = (*NODES, GATEWAY).index(name) % len(all_)
        return ",".join(all_[first:] + all_[:first])

    def _plan(self, name: str) -> NodePlan:
        clock = self.folder / f"{name}.clock"
        set_step(clock, 0.0)
        return NodePlan(
            node_id=name,
            context=self.text_of(name),
            model=str(self.model),
            aggregator=self._addresses_for(name),
            wrapper=(sys.executable, "-m", "tests.chaos.stepped", str(clock)),
        )

    def text_of(self, name: str) -> Path:
        """The file of a node's private text."""
        return self.folder / f"{name}.txt"

    def replace_text(self, name: str, text: str) -> None:
        """Put another file in its place, as editors do."""
        draft = self.folder / f"{name}.draft"
        draft.write_text(text)
        draft.replace(self.text_of(name))

    def step_clock(self, name: str, seconds: float) -> None:
        set_step(self.folder / f"{name}.clock", seconds)

    def set_weather(self, weather: Weather, names: list[str] | None = None) -> None:
        """Of the ways of some to all aggregators, or of all ways."""
        for name in self.ways if names is None else names:
            self.ways[name].set_weather(weather)

    def cut_off(self, *aggregators: str) -> None:
        """Cut all ways to some aggregators, and none to the others."""
        for way in self.ways.values():
            way.cut_off([self.addresses[name] for name in aggregators])

    def set_uplinks(self, weather: Weather, names: list[str] | None = None) -> None:
        """Of the links to NATS that some aggregators have, or all."""
        for name in self.uplinks if names is None else names:
            self.uplinks[name].set_weather(weather)

    def pid(self, name: str) -> int:
        return int(self.network.parts[name].process.pid)

    def signal(self, name: str, number: signal.Signals) -> None:
        os.kill(self.pid(name), number)

    def kill(self, name: str) -> None:
        self.network.parts[name].process.kill()
        self.network.parts[name].process.wait()

    def fill_disk(self, name: str, *, is_full: bool) -> None:
        """Let a process write to files no more (EFBIG, where a full disk says ENOSPC), or again."""
        _, hard = resource.prlimit(self.pid(name), resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid(name), resource.RLIMIT_FSIZE, (0 if is_full else hard, hard))

    def is_whole(self) -> bool:
        """Whether all nodes are joined, and the gateway and every aggregator know all others."""
        if self.network.joined() != set(NODES):
            return False
        return asyncio.run(all_know(self.addresses, NODES, self.network.certificates))

    def place_of(self, aggregator: str) -> str:
        """What an aggregator does for the query that runs."""
        gauges = self.gauges(aggregator)
        does = ["serves the session"] if gauges.get(SESSIONS) else []
        does += ["holds the publisher"] if gauges.get(TUNNELS) else []
        return " and ".join(does) or "neither serves the session nor holds the publisher"

    def dead(self) -> list[str]:
        """Services that have ended by themselves."""
        parts = self.network.parts.items()
        return [name for name, part in parts if part.process.poll() is not None]

    def held(self, name: str) -> Held:
        folder = Path(f"/proc/{self.pid(name)}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        return Held(
            files=sum(1 for _ in (folder / "fd").iterdir()),
            threads=int(status["Threads"]),
            resident_mib=int(status["VmRSS"].split()[0]) >> 10,
        )

    def gauges(self, name: str) -> dict[str, float]:
        """What a service tells Prometheus; nothing if it does not answer."""
        found: dict[str, float] = {}
        if name not in self.metrics:
            return found
        with suppress(httpx.HTTPError):
            text = httpx.get(f"http://127.0.0.1:{self.metrics[name]}/metrics", timeout=5.0).text
            for family in text_string_to_metric_families(text):
                found |= {sample.name: sample.value for sample in family.samples}
        return found

    def busy(self) -> list[str]:
        """Services that say they still do something for somebody."""
        return [
            f"{name}: {gauge} {value:g}"
            for name in self.services
            for gauge, value in self.gauges(name).items()
            if gauge in BUSY and value
        ]

    def num_state_files(self) -> int:
        return sum(path.is_file() for path in self.network.state_dir.rglob("*"))


def wait_for(is_so: Callable[[], object], within_s: float) -> bool:
    """Whether something came to be in time."""
    end = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_S)
    return True


@contextmanager
def running_federation(
    model: Path, folder: Path, seed: int, num_aggregators: int = 3, *, has_defaults: bool = False
) -> Iterator[Federation]:
    """All started and joined.

    Args:
        model: prepared folder of a tiny model.
        folder: for texts, clocks, and what NATS writes.
        seed: of what links lose.
        num_aggregators: one alone without NATS, or several.
        has_defaults: whether nodes that let others wait rest as long as they do by default.
    """
    with ExitStack() as stack:
        network = stack.enter_context(local_network())
        links = stack.enter_context(Links())
        names = [f"{AGGREGATOR}-{number}" for number in range(num_aggregators)]
        names = names if num_aggregators > 1 else [AGGREGATOR]
        nats_port = free_port()
        nats = HostPort(LOOPBACK, nats_port)
        numbers = count(seed)
        federation = Federation(
            network=network,
            addresses={name: HostPort(LOOPBACK, free_port()) for name in names},
            ways={name: links.add(None, next(numbers)) for name in (*NODES, GATEWAY)},
            uplinks={name: links.add(nats, next(numbers)) for name in names if len(names) > 1},
            nats_port=nats_port,
            model=model,
            folder=folder,
            pauses=() if has_defaults else _PAUSES,
        )
        stack.callback(_let_go, federation)
        for name, text in TEXTS.items():
            federation.text_of(name).write_text(text)
        for name in federation.services:
            federation.start(name)
        list(network.wait_ready(NODES, _START_S))
        wait_for(federation.is_whole, _START_S)
        yield federation


def _let_go(federation: Federation) -> None:
    """What is frozen could not be stopped in order."""
    federation.set_weather(CLEAR)
    federation.set_uplinks(CLEAR)
    federation.cut_off()
    for name in federation.services:
        with suppress(OSError, KeyError):
            federation.signal(name, signal.SIGCONT)
