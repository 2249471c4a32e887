"""How NATS is reached, and where in it a federation is."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from fedattn.wire.security import AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsAccess:
    """What the settings say of NATS.

    Attributes:
        servers: URLs; any of them will do.
        credentials: file with a user's JWT and key; None for none.
        certificates: folder with ca.crt, tls.crt and tls.key for servers that want TLS.
        federation: name that its buckets and subjects bear.
        replicas: servers that keep a copy of what is written.
        domain: of JetStream that this service writes to; empty for the one of its server.
        domains: that are read, the own included.
    """

    servers: tuple[str, ...]
    credentials: Path | None = None
    certificates: Path | None = None
    federation: str = "fedattn"
    replicas: int = 1
    domain: str = ""
    domains: tuple[str, ...] = ("",)

    def bucket(self, domain: str) -> str:
        """Name of a domain's directory; each has its own, or both would keep what is written."""
        return f"{self.federation}_{domain}" if domain else self.federation

    def shared(self, kind: str) -> str:
        """Name of a bucket or stream that gateways share."""
        return f"gateways_{self.federation}_{kind}"

    def subject(self, kind: str, name: str) -> str:
        """What a service is written to, or asked, by."""
        return f"{self.federation}.{kind}.{name}"

    def tls(self) -> ssl.SSLContext | None:
        """What this end proves itself with, read anew for each connection."""
        if self.certificates is None or not any(one.startswith("tls:") for one in self.servers):
            return None
        context = ssl.create_default_context(cafile=str(self.certificates / AUTHORITY_FILE))
        context.load_cert_chain(self.certificates / CERTIFICATE_FILE, self.certificates / KEY_FILE)
        return context
