"""A whole network of processes on this machine's loopback."""

import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from fedattn.cli.log_lines import readable
from fedattn.cli.nodes import joined
from fedattn.cli.signals import unwinding_on_signals
from fedattn.client import Client
from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError, FedAttnError, UnavailableError
from fedattn.core.node_id import AGGREGATOR, GATEWAY
from fedattn.runtime.listening import find_free

_POLL_S = 0.1
_STOP_GRACE_S = 15.0
_LOG_TAIL_LINES = 20
_CERTIFICATE_DAYS = 30
_PORTS = range(20_000, 32_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One participant to start.

    Attributes:
        node_id: its id.
        context: its private text; None for none.
        model: as for `fedattn model prepare`.
        aggregator: host:port where it finds aggregators, with commas between; None for the
            network's own.
        wrapper: words before its command, such as those that enter a network namespace.
    """

    node_id: str
    context: Path | None = None
    model: str = "default"
    aggregator: str | None = None
    wrapper: tuple[str, ...] = ()


@dataclass(slots=True)
class Part:
    """A started process and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def ending(self) -> str:
        """How it has ended, by a signal or with an exit code; empty if it has not."""
        match self.process.poll():
            case None:
                return ""
            case code if code < 0:
                return f"was killed by signal {-code}"
            case code:
                return f"ended with exit code {code}"

    def require_alive(self, error: type[FedAttnError] = ConfigurationError) -> None:
        """Raise an error with the log's tail if the process has ended."""
        if ending := self.ending:
            raise error(f"{self.name} {ending}; the end of its log:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The last lines of its log."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(map(readable, lines[-_LOG_TAIL_LINES:]))

    def stop(self) -> int:
        """SIGTERM, then the exit code; SIGKILL if it does not end in time."""
        self.process.terminate()
        return self.wait_end()

    def wait_end(self) -> int:
        """The exit code of a part that was told to stop; SIGKILL if it does not end in time."""
        try:
            return self.process.wait(_STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@dataclass(slots=True, kw_only=True)
class LocalNetwork:
    """Aggregator, participants and gateway, each a process of its own.

    Any node can publish. They speak mutual TLS, and seal their rows, with
    certificates that are made in the folder `certificates`; plaintext if it is None. What outlives
    a part lies in a folder of its name in `state_dir`.
    """

    gateway_address: HostPort
    aggregator_address: HostPort
    log_dir: Path
    certificates: Path | None = None
    state_dir: Path
    parts: dict[str, Part] = field(default_factory=dict)

    @property
    def gateway_url(self) -> str:
        return f"http://{self.gateway_address}"

    def start_aggregator(
        self, *flags: str, name: str = AGGREGATOR, address: HostPort | None = None
    ) -> Part:
        """Start an aggregator.

        Args:
            flags: for its command line.
            name: of its part, its certificate and its folder.
            address: where it listens; None for the network's own.
        """
        return self._start(
            name,
            [
                "services.aggregator",
                f"--listen={address or self.aggregator_address}",
                f"--state={self.state_dir / name}",
                *flags,
            ],
        )

    def start_participant(self, node: NodePlan, *flags: str) -> Part:
        """Start one node; flags go to its command line."""
        arguments = [
            "services.participant",
            f"--node-id={node.node_id}",
            f"--aggregator={node.aggregator or self.aggregator_address}",
            "--publish",
            f"--model={node.model}",
            f"--state={self.state_dir / node.node_id}",
            "--threads=1",  # the nodes share this machine's cores
            *flags,
        ]
        if node.context is not None:
            arguments.append(f"--context={node.context}")
        return self._start(node.node_id, arguments, node.wrapper)

    def start_gateway(self, publisher: str, *flags: str, aggregator: str | None = None) -> Part:
        """Start the gateway, whose default publisher is a node.

        Args:
            publisher: id of that node.
            flags: for its command line.
            aggregator: host:port where it finds aggregators, with commas between; None for the
                network's own.
        """
        return self._start(
            "gateway",
            [
                "gateway",
                f"--listen={self.gateway_address}",
                f"--aggregator={aggregator or self.aggregator_address}",
                f"--publisher={publisher}",
                *flags,
            ],
        )

    def wait_ready(self, node_ids: list[str], timeout_s: float = 120.0) -> Iterator[str]:
        """Yield each part's name once it is ready, until all are.

        Raises:
            ConfigurationError: a part ended, or was not ready in time; with its log's tail.
        """
        deadline = time.monotonic() + timeout_s
        missing = set(node_ids)
        while missing:
            for part in self.parts.values():
                part.require_alive()
            if time.monotonic() > deadline:
                late = self.parts[min(missing)]
                raise ConfigurationError(
                    f"{late.name} was not ready within {timeout_s:g} s; the end of its log:\n"
                    f"{late.log_tail()}"
                )
            for node_id in sorted(self.joined() & missing):
                missing.discard(node_id)
                yield node_id
            time.sleep(_POLL_S)

    def joined(self) -> set[str]:
        """Ids of the nodes that the gateway lists."""
        try:
            with Client(self.gateway_url, retries=0) as client:
                return {node.node_id for node in joined(client.participants())}
        except UnavailableError:
            return set()

    def _start(self, name: str, module_and_flags: list[str], wrapper: tuple[str, ...] = ()) -> Part:
        log_path = self.log_dir / f"{name}.log"
        security = "--plaintext"
        if self.certificates is not None:
            from fedattn.cli.certificates import init_certificates

            nodes = [] if name in {AGGREGATOR, GATEWAY} else [name]
            init_certificates(self.certificates, nodes, _CERTIFICATE_DAYS, report=lambda _: None)
            security = f"--certificates={self.certificates / name}"
        process = _start_process(
            [*wrapper, sys.executable, "-m", *module_and_flags, security], log_path
        )
        part = Part(name, process, log_path)
        self.parts[name] = part
        return part

    def stop(self) -> dict[str, int]:
        """Tell all to stop, the gateway first, and wait; returns exit codes by name.

        All at once, since each finishes what runs: nobody needs to wait for another's end.
        """
        parts = list(reversed(self.parts.values()))
        self.parts.clear()
        for part in parts:
            part.process.terminate()
        return {part.name: part.wait_end() for part in parts}


@contextmanager
def local_network(
    gateway_port: int = 0, *, plaintext: bool = False, state: Path | None = None
) -> Iterator[LocalNetwork]:
    """An empty network that stops whatever was started in it, also when a signal ends the program.

    Args:
        gateway_port: 0 for any.
        plaintext: without certificates, which lie in a temporary folder otherwise.
        state: folder of what outlives the parts; None for a temporary one.

    Raises:
        ConfigurationError: there is no such port, or it is taken: known before anything starts.
    """
    gateway = HostPort.parse_listening(f"127.0.0.1:{gateway_port}")
    find_free(gateway)
    with ExitStack() as stack:
        stack.enter_context(unwinding_on_signals())
        log_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedattn-")))
        network = LocalNetwork(
            gateway_address=gateway if gateway_port else gateway.with_port(free_port()),
            aggregator_address=gateway.with_port(free_port()),
            log_dir=log_dir,
            certificates=None if plaintext else log_dir / "certificates",
            state_dir=state or log_dir / "state",
        )
        stack.callback(network.stop)
        yield network


def free_port() -> int:
    """A loopback port that nobody listens on, below those that systems give outgoing connections.

    One of the latter may be taken by any connection between this call and the listening.
    """
    for port in random.sample(_PORTS, k=100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ConfigurationError("no free port found on 127.0.0.1; end programs that listen there")


def _start_process(command: list[str], log_path: Path) -> subprocess.Popen[bytes]:
    log: IO[bytes]
    with log_path.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own modules
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_clean_environment(os.environ),
            start_new_session=True,  # Ctrl-C reaches us alone; we stop them in order
        )


def _clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Without settings meant for services started by hand."""
    prefixes = ("FEDATTN_AGGREGATOR_", "FEDATTN_PARTICIPANT_", "FEDATTN_GATEWAY_")
    return {key: value for key, value in environment.items() if not key.startswith(prefixes)}
