"""HOST:PORT: one parser, which refuses at once what could never serve or be reached."""

from collections.abc import Callable

import pytest

from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:50051", "127.0.0.1", 50051),
        ("localhost:1", "localhost", 1),
        ("node_a.example.com.:65535", "node_a.example.com.", 65535),
        ("[::1]:50051", "::1", 50051),
        ("[fe80::1%eth0]:7", "fe80::1%eth0", 7),
    ],
)
def test_address_is_read_and_written_alike(text: str, host: str, port: int) -> None:
    address = HostPort.parse(text)
    assert (address.host, address.port) == (host, port)
    assert str(address) == text


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("127.0.0.1:99999", "a port is [01] to 65535"),
        ("127.0.0.1:-1", "a port is [01] to 65535"),
        ("127.0.0.1:00000099999", "a port is [01] to 65535"),
        ("127.0.0.1:+1", "a port is"),
        ("127.0.0.1:\u0663", "a port is"),
        ("127.0.0.1:", "a port is"),
        ("unix:/tmp/socket", "a port is"),
        ("localhost", "add a port"),
        ("", "add a port"),
        ("50051", "name the host too, such as 127.0.0.1:50051"),
        (":50051", "name the host too"),
        ("http://10.0.0.5:50051/", "leave http:// out: 10.0.0.5:50051"),
        ("::1:50051", "in brackets"),
        ("[::1]", "as \\[::1\\]:50051"),
        ("[localhost]:1", "as \\[::1\\]:50051"),
        ("[::1%\n]:1", "as \\[::1\\]:50051"),
        ("[fe80::1%" + "x" * 16 + "]:1", "as \\[::1\\]:50051"),
        ("256.1.1.1:1", "four numbers"),
        ("10.1:1", "four numbers"),
        ("a b:1", "letters, digits"),
        ("user@host:1", "letters, digits"),
        ("host/path:1", "letters, digits"),
        ("-host:1", "letters, digits"),
        ("a..b:1", "letters, digits"),
        (f"{'a.' * 130}b:1", "letters, digits"),
    ],
)
@pytest.mark.parametrize("parse", [HostPort.parse, HostPort.parse_listening])
def test_what_is_no_address_is_refused_with_a_remedy(
    text: str, remedy: str, parse: Callable[[str], HostPort]
) -> None:
    with pytest.raises(ConfigurationError, match=f"expected HOST:PORT, got .*{remedy}") as caught:
        parse(text)
    assert len(str(caught.value)) < 250


def test_port_0_is_for_listening_only() -> None:
    assert HostPort.parse_listening("127.0.0.1:0").port == 0
    with pytest.raises(ConfigurationError, match="a port is 1 to 65535, not '0'"):
        HostPort.parse("127.0.0.1:0")


@pytest.mark.parametrize(
    ("host", "is_near"),
    [
        ("127.0.0.1", True),
        ("10.7.0.1", True),
        ("192.168.1.9", True),
        ("100.64.3.2", True),
        ("169.254.1.1", True),
        ("[::1]", True),
        ("[fd00::7]", True),
        ("[::ffff:10.0.0.1]", True),
        ("localhost", True),
        ("aggregator", True),
        ("Nas.LAN.", True),
        ("aggregator.default.svc.cluster.local", True),
        ("8.8.8.8", False),
        ("[2001:4860:4860::8888]", False),
        ("[::ffff:8.8.8.8]", False),
        ("aggregator.example.com", False),
        ("notlocal.example", False),
    ],
)
def test_near_is_this_machine_and_private_networks(host: str, is_near: bool) -> None:
    assert HostPort.parse(f"{host}:50051").is_near is is_near


@pytest.mark.parametrize(
    "text", ["x" * 9000, f"{'x' * 9000}://a:1", f"http://{'x' * 9000}", ":" * 9000]
)
def test_refusal_of_a_long_text_is_short(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HostPort.parse(text)
    assert len(str(caught.value)) < 400
