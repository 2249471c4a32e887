"""Which connections go through a proxy."""

import pytest

from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError
from fedattn.core.proxies import Endpoint, check_proxy_choice, find_endpoint

FAR = HostPort("aggregator.example.com", 50051)
PROXY = "http://proxy.example.com:3128"


@pytest.mark.parametrize("name", ["grpc_proxy", "https_proxy", "http_proxy", "all_proxy"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "192.168.0.7", "::1", "aggregator"])
def test_near_peers_are_dialled_directly_whatever_the_environment(host: str, name: str) -> None:
    environment = {name: PROXY, name.upper(): PROXY}
    assert find_endpoint(HostPort(host, 1), environment).proxy is None


@pytest.mark.parametrize(
    "name", ["grpc_proxy", "https_proxy", "http_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"]
)
def test_far_peers_are_reached_through_the_environments_proxy(name: str) -> None:
    assert find_endpoint(FAR, {name: f"{PROXY}/"}).proxy == PROXY
    assert find_endpoint(FAR, {}).proxy is None


def test_a_proxy_without_scheme_is_an_http_proxy() -> None:
    assert find_endpoint(FAR, {"http_proxy": "proxy:3128"}).proxy == "http://proxy:3128"


def test_the_more_special_variable_goes_first() -> None:
    environment = {"http_proxy": "http://b:1", "grpc_proxy": "http://a:1"}
    assert find_endpoint(FAR, environment).proxy == "http://a:1"


@pytest.mark.parametrize(
    ("exception", "host"),
    [
        ("*", "aggregator.example.com"),
        ("aggregator.example.com", "aggregator.example.com"),
        ("localhost, .example.com", "aggregator.example.com"),
        ("EXAMPLE.com", "aggregator.example.com"),
        ("8.8.8.8", "8.8.8.8"),
        ("8.0.0.0/8", "8.8.8.8"),
        ("2001:4860::/32", "2001:4860::7"),
    ],
)
def test_no_proxy_names_exceptions(exception: str, host: str) -> None:
    environment = {"https_proxy": PROXY, "no_proxy": exception}
    assert find_endpoint(HostPort(host, 1), environment).proxy is None


@pytest.mark.parametrize("exception", ["", ",", "ample.com", "9.0.0.0/8", "other.org"])
def test_no_proxy_names_nobody_else(exception: str) -> None:
    environment = {"https_proxy": PROXY, "no_proxy": exception}
    assert find_endpoint(FAR, environment).proxy == PROXY
    assert find_endpoint(HostPort("8.8.8.8", 1), environment).proxy == PROXY


def test_a_choice_goes_before_the_environment() -> None:
    near = HostPort("10.0.0.5", 50051)
    assert find_endpoint(near, {"no_proxy": "*"}, PROXY).proxy == PROXY
    assert find_endpoint(FAR, {"https_proxy": PROXY}, "none").proxy is None


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:9", "https://p:1", "http://p", "http://:1"])
def test_a_proxy_nobody_here_can_speak_to_is_refused_never_passed_by(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"all_proxy: expected http://HOST:PORT, got"):
        find_endpoint(FAR, {"ALL_PROXY": url})
    with pytest.raises(ConfigurationError, match=r"proxy: expected http://HOST:PORT, got"):
        check_proxy_choice(url)


def test_messages_name_the_proxy_without_its_login() -> None:
    endpoint = find_endpoint(FAR, {"https_proxy": "http://me:secret@proxy:3128"})
    assert endpoint.proxy == "http://me:secret@proxy:3128"
    assert str(endpoint) == ("aggregator.example.com:50051 (through the proxy http://proxy:3128)")
    assert str(Endpoint(FAR)) == "aggregator.example.com:50051"
    with pytest.raises(ConfigurationError) as caught:
        find_endpoint(FAR, {"https_proxy": "ftp://me:secret@proxy:3128"})
    assert "secret" not in str(caught.value)
