"""The federation that is struck: real processes, each node behind a link of its own."""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from fedattn.cli.network import LocalNetwork, NodePlan, free_port, local_network
from fedattn.core.node_id import AGGREGATOR, GATEWAY
from tests.chaos.links import CLEAR, Link, Links, Weather
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


@dataclass(slots=True)
class Federation:
    """An aggregator, nodes, a gateway; what is killed can be started again under its name."""

    network: LocalNetwork
    links: dict[str, Link]
    model: Path
    folder: Path
    metrics: dict[str, int] = field(default_factory=dict)

    @property
    def services(self) -> list[str]:
        """Names of all processes."""
        return [AGGREGATOR, *NODES, GATEWAY]

    @property
    def gateway_url(self) -> str:
        return self.network.gateway_url

    def start(self, name: str) -> None:
        """Start one service, again if it was killed."""
        port = self.metrics.setdefault(name, free_port())
        flags = (f"--metrics=127.0.0.1:{port}", "--log-format=json")
        if name == AGGREGATOR:
            self.network.start_aggregator(*flags, *_PAUSES)
        elif name == GATEWAY:
            address = self.links[GATEWAY].address
            self.network.start_gateway(PUBLISHER, *flags, aggregator=address)
        else:
            self.network.start_participant(self._plan(name), *flags)

    def _plan(self, name: str) -> NodePlan:
        clock = self.folder / f"{name}.clock"
        set_step(clock, 0.0)
        return NodePlan(
            node_id=name,
            context=self.text_of(name),
            model=str(self.model),
            aggregator=str(self.links[name].address),
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
        """Of some links, or of all."""
        for name in self.links if names is None else names:
            self.links[name].set_weather(weather)

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
        """Whether all nodes are joined and the gateway tells so."""
        return self.network.joined() == set(NODES)

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
def running_federation(model: Path, folder: Path, seed: int) -> Iterator[Federation]:
    """All started and joined.

    Args:
        model: prepared folder of a tiny model.
        folder: for texts and clocks.
        seed: of what links lose.
    """
    with ExitStack() as stack:
        network = stack.enter_context(local_network())
        links = stack.enter_context(Links())
        ways = {
            name: links.add(network.aggregator_address, seed + number)
            for number, name in enumerate((*NODES, GATEWAY))
        }
        federation = Federation(network, ways, model, folder)
        stack.callback(_let_go, federation)
        for name, text in TEXTS.items():
            federation.text_of(name).write_text(text)
        for name in federation.services:
            federation.start(name)
        list(network.wait_ready(NODES, _START_S))
        yield federation


def _let_go(federation: Federation) -> None:
    """What is frozen could not be stopped in order."""
    federation.set_weather(CLEAR)
    for name in federation.services:
        with suppress(OSError, KeyError):
            federation.signal(name, signal.SIGCONT)
