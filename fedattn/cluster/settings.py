"""Settings of services that may use NATS."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from fedattn.cluster.access import NatsAccess
from fedattn.core.errors import InvalidRequestError
from fedattn.core.node_id import check_name
from fedattn.runtime.settings import ServiceSettings, split_texts

_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""Of JetStream; it is part of a bucket's name."""


class ClusterSettings(ServiceSettings):
    """Base of settings classes whose services may use NATS."""

    nats: str | None = Field(
        None,
        description="URLs of NATS servers, with commas between, such as tls://nats:4222, where "
        "services of this kind find each other (docs/cluster.md); without any this one is alone.",
    )
    nats_credentials: Path | None = Field(
        None, description="File with a NATS user's JWT and key (.creds)."
    )
    nats_replicas: int = Field(
        1, ge=1, le=5, description="NATS servers that keep a copy of what is written."
    )
    nats_domain: str = Field(
        "", description="JetStream domain that this one writes to; default: the server's."
    )
    federation: str = Field(
        "fedattn", description="Name that the federation has in NATS; several may share a server."
    )
    lease_s: float = Field(
        3.0,
        gt=0,
        le=60,
        description="Silence after which another service of this kind is gone, seconds.",
    )

    @property
    def nats_access(self) -> NatsAccess | None:
        """How NATS is reached; None without."""
        if self.nats is None:
            return None
        return NatsAccess(
            servers=split_texts(self.nats),
            credentials=self.nats_credentials,
            certificates=self.certificates,
            federation=self.federation,
            replicas=self.nats_replicas,
            domain=self.nats_domain,
            domains=tuple(dict.fromkeys((self.nats_domain, *self._further_domains()))),
        )

    def _further_domains(self) -> tuple[str, ...]:
        """Domains that are read besides the own one."""
        return ()

    @field_validator("federation")
    @classmethod
    def _check_federation_name(cls, value: str) -> str:
        try:
            return check_name(value)
        except InvalidRequestError as error:
            raise ValueError(str(error)) from None

    @field_validator("nats")
    @classmethod
    def _check_nats(cls, value: str | None) -> str | None:
        urls = split_texts(value or "")
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in {"nats", "tls"} or not parts.hostname or parts.port == 0:
                raise ValueError("expected URLs such as tls://nats:4222")
        return value if urls else None

    @field_validator("nats_domain", "nats_domains", check_fields=False)
    @classmethod
    def _check_domains(cls, value: str) -> str:
        for domain in split_texts(value):
            if not _DOMAIN.fullmatch(domain):
                raise ValueError(f"domain {domain[:80]!r}: expected 1 to 64 of A-Z a-z 0-9 _ -")
        return value
