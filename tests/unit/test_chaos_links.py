"""The links that `make chaos` puts between nodes and their aggregator, and the clocks it steps."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedattn.core.address import HostPort
from tests.chaos.links import CLEAR, Link, Links, Weather
from tests.chaos.stepped import set_step, step_in


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def link(server: socket.socket) -> Iterator[Link]:
    with Links() as links:
        yield links.add(HostPort("127.0.0.1", server.getsockname()[1]), seed=0)


def connect(link: Link) -> socket.socket:
    return socket.create_connection((link.address.host, link.address.port))


@pytest.mark.parametrize("weather", [CLEAR, Weather(delay_s=0.01, bytes_per_s=1e7, loss=0.01)])
def test_a_link_carries_both_directions_to_their_end(
    server: socket.socket, link: Link, weather: Weather
) -> None:
    link.set_weather(weather)
    sent = bytes(range(256)) * 40
    with connect(link) as client:
        there, _ = server.accept()
        with there, there.makefile("rb") as taken, client.makefile("rb") as answered:
            client.sendall(sent)
            assert taken.read(len(sent)) == sent
            there.sendall(sent)
            there.shutdown(socket.SHUT_WR)
            assert answered.read() == sent


def test_what_is_sent_over_a_cut_link_comes_once_it_is_mended(
    server: socket.socket, link: Link
) -> None:
    with connect(link) as client:
        there, _ = server.accept()
        with there:
            link.set_weather(Weather(is_cut=True))
            client.sendall(b"word")
            client.close()
            there.setblocking(False)
            with pytest.raises(BlockingIOError):
                there.recv(1)
            link.set_weather(CLEAR)
            there.setblocking(True)
            assert (there.recv(4), there.recv(1)) == (b"word", b"")


def test_a_link_to_nobody_ends_its_connections(server: socket.socket, link: Link) -> None:
    server.close()
    with connect(link) as client:
        assert client.recv(1) == b""


def test_a_clock_is_as_wrong_as_its_file_says(tmp_path: Path) -> None:
    path = tmp_path / "clock"
    set_step(path, 0.0)
    step = step_in(path)
    assert step() == 0.0
    set_step(path, -3600.0)
    assert step() == -3600.0
