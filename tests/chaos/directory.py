"""What joins the aggregators of the federation that is struck, and whether they know each other."""

import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path

from fedattn.cli.network import LocalNetwork, Part
from fedattn.core.address import HostPort
from fedattn.core.errors import FedAttnError
from fedattn.core.node_id import GATEWAY, NATS
from fedattn.core.proxies import Endpoint
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.certificate_folder import CertificateFolder
from fedattn.wire.v1.aggregator_pb2 import ListNodesRequest
from tests.chaos.links import LOOPBACK
from tests.harness.nats import BINARY, NO_NATS


def start_nats(network: LocalNetwork, folder: Path, port: int) -> None:
    """Start it as a part of a network; it keeps its directory in memory, so it comes back empty.

    Raises:
        FileNotFoundError: there is no such program.
    """
    if BINARY is None:
        raise FileNotFoundError(NO_NATS)
    log_path = network.log_dir / f"{NATS}.log"
    config = folder / f"{NATS}.conf"
    config.write_text(f'jetstream {{ store_dir: "{folder / NATS}" }}\n')
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [BINARY, "-c", str(config), "-a", LOOPBACK, "-p", str(port)],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    network.parts[NATS] = Part(NATS, process, log_path)


async def all_know(
    addresses: Mapping[str, HostPort], nodes: Collection[str], certificates: Path | None
) -> bool:
    """Whether each aggregator knows all others, and all nodes.

    Args:
        addresses: of the aggregators, by their names.
        nodes: ids of the nodes.
        certificates: folder of all; None for plaintext.
    """
    own = None if certificates is None else CertificateFolder(certificates / GATEWAY)
    aggregators = Aggregators(list(map(Endpoint, addresses.values())), own)
    try:
        for address in addresses.values():
            listing = await aggregators.at(str(address)).list_nodes(ListNodesRequest())
            known = {one.name for one in listing.aggregators} or set(addresses)
            if known != set(addresses) or {one.node_id for one in listing.nodes} != set(nodes):
                return False
    except FedAttnError:
        return False
    finally:
        await aggregators.close()
    return True
