"""Tokens of an issuer, which is in this process."""

import asyncio
import time
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from fedattn.core.errors import (
    ConfigurationError,
    GatewayUnavailableError,
    NotAllowedError,
    NotSignedInError,
)
from gateway.callers import Limits
from gateway.oidc import MAX_AGE_S, MIN_REFRESH_S, Issuer, TokenReader

URL = "https://issuer.example/realm"
AUDIENCE = "fedattn"


class LocalIssuer:
    """Makes tokens, and answers as an issuer does."""

    def __init__(self) -> None:
        self.keys = {"one": ec.generate_private_key(ec.SECP256R1())}
        self.num_fetches = 0
        self.is_up = True
        self.names_itself = URL
        self.further_keys: list[dict[str, Any]] = []
        self.let_go = asyncio.Event()
        self.let_go.set()

    def token(self, key_id: str = "one", **changes: Any) -> str:
        now = int(time.time())
        claims = {"iss": URL, "aud": AUDIENCE, "sub": "anna", "exp": now + 60, "iat": now}
        claims = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(claims, self.keys[key_id], "ES256", {"kid": key_id})

    async def answer(self, request: httpx.Request) -> httpx.Response:
        await self.let_go.wait()
        if not self.is_up:
            raise httpx.ConnectError("no route")
        if request.url.path == "/realm/.well-known/openid-configuration":
            document = {"issuer": self.names_itself, "jwks_uri": f"{URL}/keys"}
            return httpx.Response(200, json=document)
        assert request.url.path == "/realm/keys"
        self.num_fetches += 1
        algorithm = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256)
        keys = [
            algorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": key_id, "alg": "ES256"}
            for key_id, key in self.keys.items()
        ]
        return httpx.Response(200, json={"keys": keys + self.further_keys})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> LocalIssuer:
    return LocalIssuer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def reader_of(issuer: LocalIssuer, clock: Clock, **settings: Any) -> TokenReader:
    client = httpx.AsyncClient(transport=httpx.MockTransport(issuer.answer))
    return TokenReader(
        Issuer(url=URL, audience=AUDIENCE, **settings), Limits(max_concurrent=3), client, clock
    )


@pytest.fixture
def reader(issuer: LocalIssuer, clock: Clock) -> TokenReader:
    return reader_of(issuer, clock)


async def test_a_good_token_says_who_asks(issuer: LocalIssuer, reader: TokenReader) -> None:
    caller = await reader.read(issuer.token(aud=["other", AUDIENCE]))
    assert caller.subject == "anna"
    assert caller.publishers is None
    assert caller.limits == Limits(max_concurrent=3)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": "other"},
        {"exp": 1000},
        {"nbf": 4_000_000_000},
        {"iss": None},
        {"aud": None},
        {"exp": None},
    ],
    ids=str,
)
async def test_a_token_of_elsewhere_or_another_time_is_refused(
    issuer: LocalIssuer, reader: TokenReader, changes: dict[str, Any]
) -> None:
    with pytest.raises(NotSignedInError, match="get a new one"):
        await reader.read(issuer.token(**changes))


async def test_a_token_that_others_made_is_refused(
    issuer: LocalIssuer, reader: TokenReader
) -> None:
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    other = ec.generate_private_key(ec.SECP256R1())
    rsa_key = rsa.generate_private_key(65537, 2048)
    kid = {"kid": "one"}
    head, _, tail = issuer.token().partition(".")
    forged = [
        jwt.encode(claims, other, "ES256", kid),
        jwt.encode(claims, rsa_key, "RS256", kid),
        jwt.encode(claims, "x" * 64, "HS256", kid),
        jwt.encode(claims, "", "none", kid),
        f"{head}.{tail[:-4]}AAAA",
        "",
        "a.b.c",
        "\xe9",
    ]
    for token in forged:
        with pytest.raises(NotSignedInError):
            await reader.read(token)


async def test_a_key_that_is_new_is_fetched_but_not_all_the_time(
    issuer: LocalIssuer, reader: TokenReader, clock: Clock
) -> None:
    await reader.read(issuer.token())
    issuer.keys["two"] = ec.generate_private_key(ec.SECP256R1())
    token = issuer.token("two")
    for _ in range(5):
        with pytest.raises(NotSignedInError, match="does not have"):
            await reader.read(token)
    assert issuer.num_fetches == 1
    clock.now += MIN_REFRESH_S
    assert (await reader.read(token)).subject == "anna"
    assert issuer.num_fetches == 2


async def test_first_tokens_that_come_at_once_wait_for_the_keys(
    issuer: LocalIssuer, reader: TokenReader
) -> None:
    issuer.let_go.clear()
    reading = [asyncio.create_task(reader.read(issuer.token())) for _ in range(3)]
    await asyncio.sleep(0)
    issuer.let_go.set()
    assert [caller.subject for caller in await asyncio.gather(*reading)] == ["anna"] * 3
    assert issuer.num_fetches == 1


async def test_a_key_without_an_algorithm_is_good_for_all_of_its_kind(
    issuer: LocalIssuer, reader: TokenReader
) -> None:
    rsa_key, odd = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP521R1())
    rsa_jwk = jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True)
    odd_jwk = jwt.algorithms.ECAlgorithm.to_jwk(odd.public_key(), as_dict=True)
    issuer.further_keys = [rsa_jwk | {"kid": "rsa"}, odd_jwk | {"kid": "odd"}]
    claims = jwt.decode(issuer.token(), options={"verify_signature": False})
    for algorithm in ("RS256", "RS384", "PS256"):
        token = jwt.encode(claims, rsa_key, algorithm, {"kid": "rsa"})
        assert (await reader.read(token)).subject == "anna"
    with pytest.raises(NotSignedInError):
        await reader.read(jwt.encode(claims, "x" * 64, "HS256", {"kid": "rsa"}))
    with pytest.raises(NotSignedInError, match="does not have"):
        await reader.read(jwt.encode(claims, odd, "ES512", {"kid": "odd"}))


async def test_a_withdrawn_key_is_refused_in_time(
    issuer: LocalIssuer, reader: TokenReader, clock: Clock
) -> None:
    token = issuer.token()
    await reader.read(token)
    issuer.keys = {"two": ec.generate_private_key(ec.SECP256R1())}
    clock.now += MAX_AGE_S + 1
    with pytest.raises(NotSignedInError):
        await reader.read(token)


async def test_an_issuer_that_is_away_stops_nobody_it_has_let_in(
    issuer: LocalIssuer, reader: TokenReader, clock: Clock
) -> None:
    await reader.read(issuer.token())
    issuer.is_up = False
    clock.now += 2 * MAX_AGE_S
    assert (await reader.read(issuer.token())).subject == "anna"


@pytest.mark.parametrize("names_itself", [URL, "https://evil.example"])
async def test_without_any_keys_the_fault_is_not_the_callers(
    issuer: LocalIssuer, reader: TokenReader, names_itself: str
) -> None:
    issuer.is_up, issuer.names_itself = names_itself != URL, names_itself
    with pytest.raises(GatewayUnavailableError, match="cannot be fetched"):
        await reader.read(issuer.token())


async def test_another_claim_may_name_who_asks(issuer: LocalIssuer, clock: Clock) -> None:
    reader = reader_of(issuer, clock, subject_claim="email")
    caller = await reader.read(issuer.token(email="anna@ward-1"))
    assert caller.subject == "anna@ward-1"
    for email in (None, "", 7, "auth0|7", "a b"):
        with pytest.raises(NotAllowedError, match="--oidc-subject-claim"):
            await reader.read(issuer.token(email=email))


@pytest.mark.parametrize(
    ("nodes", "allowed"),
    [("a b", {"a", "b"}), (["a", 7], {"a"}), (None, set()), ({"a": 1}, set())],
)
async def test_a_claim_may_list_publishers_and_without_it_there_are_none(
    issuer: LocalIssuer, clock: Clock, nodes: object, allowed: set[str]
) -> None:
    reader = reader_of(issuer, clock, publishers_claim="nodes")
    assert (await reader.read(issuer.token(nodes=nodes))).publishers == frozenset(allowed)


@pytest.mark.parametrize("url", ["http://issuer.example", "issuer", "", "ftp://x"])
def test_an_issuer_that_others_could_play_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="https://"):
        Issuer(url=url, audience=AUDIENCE)
