"""TLS between services and NATS, configured as docs/cluster.md shows."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fedattn.cli.certificates import init_certificates
from fedattn.cluster.access import NatsAccess
from fedattn.cluster.connection import Failure, NatsConnection
from tests.harness.identities import folder_of
from tests.harness.nats import (
    BINARY,
    NO_NATS,
    FederatedAggregator,
    NatsServer,
    running_nats,
    tls_config,
    until,
)

pytestmark = pytest.mark.skipif(BINARY is None, reason=NO_NATS)


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    config = tls_config(aggregators=("aggregator-0", "aggregator-1"), gateways=("gateway",))
    async with running_nats(tmp_path / "nats", config) as server:
        yield server


async def refusal(url: str, folder: Path) -> str:
    with pytest.raises(Failure) as caught:
        await NatsConnection.open(NatsAccess(servers=(url,), certificates=folder))
    return str(caught.value)


async def test_aggregators_find_each_other_by_their_certificates(nats: NatsServer) -> None:
    both = [
        FederatedAggregator(name, nats.tls_url, certificates=folder_of(name))
        for name in ("aggregator-0", "aggregator-1")
    ]
    for one in both:
        await one.start()
    try:
        names = {one.name for one in both}
        await until(lambda: all(one.knows()[0] == names for one in both))
    finally:
        for one in both:
            await one.stop()


async def test_a_certificate_that_is_no_user_of_the_server_is_named(nats: NatsServer) -> None:
    said = await refusal(nats.tls_url, folder_of("ward-1"))
    assert "lets this service not in" in said
    assert "users" in said


async def test_a_certificate_of_another_authority_is_refused(
    nats: NatsServer, tmp_path: Path
) -> None:
    init_certificates(tmp_path / "other", [], 30)
    said = await refusal(nats.tls_url, tmp_path / "other" / "gateway")
    assert "TLS failed" in said
    assert "one authority" in said


async def test_a_server_without_the_name_nats_is_not_taken(tmp_path: Path) -> None:
    config = tls_config(gateways=("gateway",)).replace(
        str(folder_of("nats")), str(folder_of("ward-1"))
    )
    async with running_nats(tmp_path / "nats", config) as server:
        said = await refusal(server.tls_url, folder_of("gateway"))
    assert "TLS failed" in said
    assert "'nats'" in said


async def test_who_comes_without_tls_is_not_let_in(nats: NatsServer) -> None:
    with pytest.raises(Failure):
        await NatsConnection.open(NatsAccess(servers=(nats.url,)))
