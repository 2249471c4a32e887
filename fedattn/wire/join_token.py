"""What an operator hands to whoever sets up a node, so that it gets a certificate once."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Self

from fedattn.core.address import HostPort
from fedattn.core.errors import FedAttnError, IdentityMismatchError, InvalidRequestError
from fedattn.core.node_id import check_node_id

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{32,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """NODE@HOST:PORT/SHA256/SECRET: for whom, where the authority is, which one, and the right.

    Attributes:
        node_id: who joins by it.
        authority: where the authority listens.
        digest: SHA-256 of the authority's `ca.crt`, hex, by which the node knows it.
        secret: good once.
    """

    node_id: str
    authority: HostPort
    digest: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.node_id}@{self.authority}/{self.digest}/{self.secret}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a token as `fedattn certs token` prints it.

        Raises:
            InvalidRequestError: it is none; its text is not repeated.
        """
        node_id, _, rest = text.strip().partition("@")
        address, _, proof = rest.partition("/")
        digest, _, secret = proof.partition("/")
        try:
            if not (_DIGEST.fullmatch(digest) and _SECRET.fullmatch(secret)):
                raise InvalidRequestError("it is cut off or changed")
            return cls(
                node_id=check_node_id(node_id),
                authority=HostPort.parse(address),
                digest=digest,
                secret=secret,
            )
        except FedAttnError as error:
            raise InvalidRequestError(
                "expected a token as `fedattn certs token` prints it, "
                "NODE@HOST:PORT/SHA256/SECRET, got something else; copy all of it"
            ) from error

    def check_authority(self, pem: bytes) -> None:
        """Hold a `ca.crt` against the token.

        Raises:
            IdentityMismatchError: it is another one.
        """
        found = authority_digest(pem)
        if found != self.digest:
            raise IdentityMismatchError(
                f"the authority at {self.authority} shows a ca.crt with SHA-256 {found[:16]}..., "
                f"the token is of {self.digest[:16]}...; somebody else answers there, or the token "
                f"is of another authority"
            )


def authority_digest(pem: bytes) -> str:
    """SHA-256 of a `ca.crt`, hex, as `sha256sum` prints it."""
    return hashlib.sha256(pem).hexdigest()
