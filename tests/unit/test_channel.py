"""Channels to peers that are not there."""

from fedattn.cli.network import free_port
from fedattn.core.address import HostPort
from fedattn.core.proxies import Endpoint
from fedattn.wire.channel import becomes_ready, open_channel


async def test_a_refusal_is_known_at_once_though_grpc_goes_on_trying() -> None:
    async with open_channel(Endpoint(HostPort("127.0.0.1", free_port()))) as channel:
        assert not await becomes_ready(channel)  # never true or false if that is missed
