"""What a service or a new node asks of the authority, over HTTPS. Blocks: call it in a thread."""

import http.client
import json
import ssl
from typing import Any

from fedattn.core.address import HostPort
from fedattn.core.errors import AuthorityUnavailableError, FedAttnError, error_from_code
from fedattn.wire.revocation import MAX_LIST_SIZE

AUTHORITY = "authority"
"""Name in the certificate of the authority's own service."""
_TIMEOUT_S = 5.0
_MAX_ANSWER_SIZE = MAX_LIST_SIZE


class AuthorityClient:
    """One authority, by its address and its certificate.

    Args:
        address: where it listens.
        authority: PEM of its certificate; None trusts whoever answers, and is only good to ask
            for the certificate that a token names.
    """

    def __init__(self, address: HostPort, authority: bytes | None) -> None:
        self._address = address
        self._context = ssl.create_default_context(
            cadata=None if authority is None else authority.decode("ascii")
        )
        if authority is None:
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE

    def certificate(self) -> bytes:
        """Its `ca.crt`. Raises as `revoked`."""
        return self._ask("GET", "/v1/authority")

    def revoked(self) -> bytes:
        """Its list of revoked certificates, PEM.

        Raises:
            AuthorityUnavailableError: it cannot be reached, or another one answers there.
            FedAttnError: as it answers.
        """
        return self._ask("GET", "/v1/revocations")

    def date(self) -> str:
        """Its clock, as HTTP tells it; empty if it does not. Raises as `revoked`."""
        return self._exchange("GET", "/v1/authority")[0].headers.get("Date", "")

    def enrol(self, node_id: str, secret: str, request: str) -> bytes:
        """The first certificate of a node, PEM. Raises as `revoked`.

        Args:
            node_id: as the token says.
            secret: of the token; used up by this.
            request: certificate signing request, PEM.
        """
        body = {"node_id": node_id, "secret": secret, "request": request}
        return self._ask("POST", "/v1/certificates", json.dumps(body).encode())

    def renew(self, node_id: str, signed: bytes) -> bytes:
        """A newer certificate, PEM. Raises as `revoked`.

        Args:
            node_id: name in the certificate.
            signed: certificate signing request in a `Signed` of the kind renewal, serialized.
        """
        return self._ask("POST", f"/v1/certificates/{node_id}/renew", signed)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        response, answer = self._exchange(method, path, body)
        if response.status == http.HTTPStatus.OK and len(answer) <= _MAX_ANSWER_SIZE:
            return answer
        raise self._refusal(response.status, answer)

    def _exchange(
        self, method: str, path: str, body: bytes | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """The head of the answer, and its body or more than may be of it."""
        connection = _NamedConnection(self._address, self._context)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            answer = response.read(_MAX_ANSWER_SIZE + 1)
        except (OSError, http.client.HTTPException) as error:
            raise AuthorityUnavailableError(
                f"the authority at {self._address} cannot be reached ({error}); is "
                f"`fedattn certs serve` running there, with the authority of this ca.crt?"
            ) from error
        finally:
            connection.close()
        return response, answer

    def _refusal(self, status: int, answer: bytes) -> FedAttnError:
        try:
            problem: Any = json.loads(answer)
            return error_from_code(problem["code"], problem["detail"])
        except (ValueError, TypeError, KeyError):
            return AuthorityUnavailableError(
                f"the authority at {self._address} answers with HTTP status {status}, expected "
                f"200; something else listens there"
            )


class _NamedConnection(http.client.HTTPSConnection):
    """Expects the authority's name in the certificate, wherever the authority may live."""

    def __init__(self, address: HostPort, context: ssl.SSLContext) -> None:
        super().__init__(address.host, address.port, timeout=_TIMEOUT_S)
        self._tls = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=AUTHORITY)
