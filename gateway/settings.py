"""Settings of the gateway."""

import os
import re
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from fedattn.cluster.settings import ClusterSettings
from fedattn.cluster.shared_key import SHARED_KEY_FILE
from fedattn.core.address import HostPort, HostPorts
from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.core.node_id import check_node_id
from fedattn.core.proxies import AUTO, Endpoint, find_endpoint
from fedattn.core.share import Share
from fedattn.runtime.doors import Doors, tls_context
from fedattn.runtime.settings import (
    PROXY_MEANING,
    ListenAddress,
    PeerAddresses,
    ProxyChoice,
    service_config,
)
from gateway.callers import Limits
from gateway.jobs_limits import JobLimits
from gateway.limits import QueryLimits

_ORIGIN = re.compile(r"https?://[^/\s*?#@]+")


class GatewaySettings(ClusterSettings):
    """Environment variables FEDATTN_GATEWAY_*, overridden by flags."""

    model_config = service_config("FEDATTN_GATEWAY_", "python -m gateway")

    listen: ListenAddress = Field(
        HostPort("127.0.0.1", 8000), description="HOST:PORT to serve on; port 0 for any."
    )
    aggregator: PeerAddresses = Field(
        HostPorts((HostPort("127.0.0.1", 50051),)),
        description="HOST:PORT of the aggregator, or of several with commas between: if one is "
        "lost, the next is taken.",
    )
    publisher: str | None = Field(
        None,
        description="Node that queries go to which name none; default: the first by id that takes "
        "queries.",
    )
    proxy: ProxyChoice = Field(AUTO, description=PROXY_MEANING)
    share: Share = Field(
        Share.QUESTION,
        description="What contributors may know of questions that do not say: nothing, or question "
        "(sealed to each of them).",
    )
    max_concurrent_queries: int = Field(
        32, ge=1, le=1000, description="Queries at once; more wait for a place."
    )
    max_waiting: int = Field(
        256,
        ge=0,
        le=1000,
        description="Queries that wait for a place; more are refused with 429. Those in the "
        "background do not count.",
    )
    max_waiting_per_subject: int = Field(
        64, ge=0, le=1000, description="Those of one subject, if queries say who asks."
    )
    keys: Path | None = Field(
        None, description="File of API keys that `fedattn keys create` makes; who has one may ask."
    )
    shared_keys: bool = Field(
        False,
        description="Who has one of the API keys in NATS may ask: `fedattn keys create --nats`.",
    )
    shared_key: Path | None = Field(
        None,
        description="File with the key that seals what gateways keep in NATS; default: shared.key "
        "in the folder of certificates.",
    )
    oidc_issuer: str | None = Field(
        None, description="URL of an OpenID Connect issuer; who has one of its tokens may ask."
    )
    oidc_audience: str | None = Field(
        None, description="What the issuer's tokens are for: one of their `aud`."
    )
    oidc_subject_claim: str = Field(
        "sub", description="Claim with the name that owners' policies know."
    )
    oidc_publishers_claim: str | None = Field(
        None, description="Claim that lists the nodes a token may publish through; all if absent."
    )
    open: bool = Field(
        False,
        description="Anyone may ask who reaches the port, beyond the loopback too; for networks "
        "nobody else is on.",
    )
    queries_per_minute: int = Field(
        60, ge=1, description="Requests of one caller in a minute, unless its key says otherwise."
    )
    max_concurrent: int = Field(
        8, ge=1, description="Queries of one caller at once, unless its key says otherwise."
    )
    kv_bytes_per_day: int | None = Field(
        None, ge=1, description="Bytes of KV of one caller a day (UTC), unless its key says so."
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file with the certificate (chain) to serve HTTPS with."
    )
    tls_key: Path | None = Field(None, description="PEM file with the key of that certificate.")
    cors_origin: str | None = Field(
        None,
        description="Origins of other sites whose pages may ask, with commas between, such as "
        "https://desk.example.",
    )
    max_connections: int = Field(
        512, ge=1, description="Connections of all clients; more are dropped."
    )
    max_connections_per_address: int = Field(
        128, ge=1, description="Connections of one address, or of one IPv6 /64; more are dropped."
    )
    grace_s: int = Field(10, ge=0, description="Time for running queries at a stop, seconds.")
    state: Path | None = Field(
        None,
        description="Folder for queries asked in the background or with an idempotency key; "
        "without one they are kept in memory, and a stop loses them.",
    )
    jobs_retention_s: float = Field(
        86_400.0,
        ge=1,
        le=31_536_000,
        description="Time from the end of such a query to its removal, seconds.",
    )
    max_jobs: int = Field(1000, ge=1, description="Such queries that are kept.")
    max_jobs_per_caller: int = Field(
        200,
        ge=1,
        description="Those of one caller; the oldest that has ended makes room for a new one.",
    )
    jobs_at_once: int = Field(
        2, ge=1, description="Background queries of one caller that run at once; more wait."
    )
    jobs_waiting: int = Field(
        32, ge=0, description="Background queries of one caller that wait; more are refused."
    )

    @field_validator("publisher")
    @classmethod
    def _check_publisher(cls, value: str | None) -> str | None:
        try:
            return None if value is None else check_node_id(value)
        except InvalidRequestError as error:
            raise ValueError(str(error)) from None

    @field_validator("share")
    @classmethod
    def _check_share(cls, value: Share) -> Share:
        if value is Share.TOPIC:  # a topic is of one question
            raise ValueError("expected nothing or question; a topic goes with each query")
        return value

    @field_validator("cors_origin")
    @classmethod
    def _check_origins(cls, value: str | None) -> str | None:
        for origin in split_origins(value):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError("expected origins such as https://desk.example, without a path")
        return value

    @model_validator(mode="after")
    def _check_pairs(self) -> Self:
        """Check what goes together, and what does not; raises ConfigurationError."""
        for names in (("oidc_issuer", "oidc_audience"), ("tls_certificate", "tls_key")):
            if len({getattr(self, name) is None for name in names}) > 1:
                flags = " and ".join(f"--{name.replace('_', '-')}" for name in names)
                raise ConfigurationError(f"{flags} go together; give both or neither")
        if self.open and self.needs_sign_in:
            raise ConfigurationError(
                "--open lets anyone ask; leave it out, or leave --keys, --shared-keys and "
                "--oidc-issuer out"
            )
        if self.shared_keys and self.keys is not None:
            raise ConfigurationError("--keys and --shared-keys are two places; give one of them")
        if self.shared_keys and self.nats is None:
            raise ConfigurationError("--shared-keys are in NATS; give its URL with --nats")
        if self.nats is not None and self.state is not None:
            raise ConfigurationError(
                "--nats keeps jobs for all gateways, --state for this one; give one of them"
            )
        if self.nats is not None and (self.shared_key or self.certificates) is None:
            raise ConfigurationError(
                "--nats needs --shared-key FILE, the same for all gateways; make it with: openssl "
                "rand -hex 32"
            )
        return self

    @model_validator(mode="after")
    def _check_proxy(self) -> Self:
        assert self.endpoints
        return self

    @property
    def needs_sign_in(self) -> bool:
        """Whether only those may ask who sign in."""
        return self.keys is not None or self.shared_keys or self.oidc_issuer is not None

    @property
    def shared_key_file(self) -> Path:
        """Where the key is that seals what is kept in NATS."""
        folder = self.certificates or Path()
        return self.shared_key or folder / SHARED_KEY_FILE

    @property
    def origins(self) -> tuple[str, ...]:
        """Other sites whose pages may ask."""
        return split_origins(self.cors_origin)

    @property
    def query_limits(self) -> QueryLimits:
        """How many queries run, and how many wait."""
        return QueryLimits(
            at_once=self.max_concurrent_queries,
            background_at_once=self.jobs_at_once,
            waiting=self.max_waiting,
            waiting_of_subject=self.max_waiting_per_subject,
        )

    @property
    def caller_limits(self) -> Limits:
        """What a caller may have, unless its key says otherwise."""
        return Limits(
            queries_per_minute=self.queries_per_minute,
            max_concurrent=self.max_concurrent,
            kv_bytes_per_day=self.kv_bytes_per_day,
        )

    @property
    def job_limits(self) -> JobLimits:
        """How much is kept of queries asked in the background."""
        return JobLimits(
            retention_s=self.jobs_retention_s,
            most=self.max_jobs,
            most_of_caller=self.max_jobs_per_caller,
            at_once=self.jobs_at_once,
            waiting=self.jobs_waiting,
            grace_s=self.grace_s,
        )

    def doors(self) -> Doors:
        """Who may connect.

        Raises:
            ConfigurationError: the certificate or its key is of no use.
        """
        tls = None
        if self.tls_certificate is not None and self.tls_key is not None:
            tls = tls_context(self.tls_certificate, self.tls_key)
        return Doors(
            max_connections=self.max_connections,
            max_per_address=self.max_connections_per_address,
            tls=tls,
        )

    @property
    def endpoint(self) -> Endpoint:
        """The first aggregator, and how to reach it; raises as `find_way`."""
        return self.find_way(self.aggregator.first)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The aggregators, and how to reach them; raises as `find_way`."""
        return tuple(map(self.find_way, self.aggregator.all))

    def find_way(self, address: HostPort) -> Endpoint:
        """How to reach an aggregator.

        Raises:
            ConfigurationError: the environment names a proxy on the way that is of no use.
        """
        return find_endpoint(address, os.environ, self.proxy)


def split_origins(text: str | None) -> tuple[str, ...]:
    """The parts between commas."""
    return tuple(origin.strip().rstrip("/") for origin in (text or "").split(",") if origin.strip())
