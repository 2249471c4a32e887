"""The ways a gateway keeps to nodes: sockets of its own, and no calls that nobody asked for."""

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from fedattn.core.errors import PublisherUnavailableError
from fedattn.wire.clients import AggregatorClient
from fedattn.wire.tunnel import SocketFolder
from fedattn.wire.v1 import aggregator_pb2 as pb
from gateway.ways import Ways


class Aggregator:
    """Carries nothing, and counts who asks."""

    address = "agg:1"

    def __init__(self) -> None:
        self.num_asked = 0

    def tunnel(self, requests: AsyncIterator[pb.TunnelRequest]) -> None:
        self.num_asked += 1
        raise PublisherUnavailableError("node a has left")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where folders for sockets are made."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def sockets_in(folders: Path) -> list[Path]:
    return sorted(folders.glob("*/*"))


async def test_way_that_nobody_uses_any_more_does_not_call_the_aggregator(folders: Path) -> None:
    aggregator = Aggregator()
    ways = Ways(None)
    way = await ways.take("a", cast("AggregatorClient", aggregator), ["a"])
    with pytest.raises(PublisherUnavailableError, match="node a has left"):
        await way.connect()
    way.give_back()
    num_asked = aggregator.num_asked
    (path,) = sockets_in(folders)
    for _ in range(3):  # as gRPC goes on to connect
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read() == b""
        writer.close()
    assert aggregator.num_asked == num_asked
    await ways.close()


async def test_way_to_a_node_that_is_gone_leaves_no_socket(folders: Path) -> None:
    ways, aggregator = Ways(None), cast("AggregatorClient", Aggregator())
    (await ways.take("a", aggregator, ["a"])).give_back()
    await ways.take("b", aggregator, ["b"])
    assert [path.name for path in sockets_in(folders)] == ["000001"]
    await ways.close()
    assert sockets_in(folders) == []


def test_sockets_stand_in_a_folder_of_this_user(folders: Path) -> None:
    sockets = SocketFolder()
    folder = sockets.new().path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    sockets.close()
    assert not folder.exists()
