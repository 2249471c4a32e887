"""Which callers a server lets in, and how long they may stay."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from fedattn.core.errors import FedAttnError, IdentityMismatchError
from fedattn.wire.revocation import Revocations
from fedattn.wire.security import check_caller


@dataclass(slots=True, eq=False)
class _Call:
    """One RPC that runs, and why it has to end if it does."""

    task: asyncio.Task[Any]
    serial: int
    name: str
    reason: FedAttnError | None = None

    def expel(self, reason: FedAttnError) -> None:
        """End it, unless it is ending already."""
        if self.reason is None:
            self.reason = reason
            self.task.cancel()


_CURRENT: ContextVar[_Call | None] = ContextVar("current_call", default=None)


def why_expelled() -> FedAttnError | None:
    """Why a gate ends the RPC that runs in this task, if it does."""
    call = _CURRENT.get()
    return None if call is None else call.reason


class PeerGate:
    """Refuses callers whose certificate does not count, and ends their calls when it ends to count.

    TLS looks at a certificate once, when a connection begins, which may then last for months.

    Args:
        revocations: what is revoked.
        callers: names that certificates must bear; None for any that is signed.
        clock: seconds since 1970.
    """

    def __init__(
        self,
        revocations: Revocations,
        callers: frozenset[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._revocations, self._callers, self._clock = revocations, callers, clock
        self._calls: set[_Call] = set()
        revocations.listen(self._expel_revoked)

    @contextmanager
    def within(self, context: Any) -> Iterator[None]:
        """An RPC that runs here, as long as its caller's certificate counts.

        Raises:
            CertificateRevokedError: the certificate is revoked, before or meanwhile.
            IdentityMismatchError: it expires, or bears another name.
        """
        if self._callers is not None:
            check_caller(context, self._callers)
        certificate = _certificate_of(context)
        if certificate is None:  # plaintext
            yield
            return
        task = asyncio.current_task()
        assert task is not None
        name = certificate.subject.rfc4514_string()
        call = _Call(task, certificate.serial_number, name)
        self._revocations.refuse([call.serial], name)
        expired = IdentityMismatchError(
            f"the certificate of {name} has expired; a node that runs renews its own, another "
            f"one joins again with a token of `fedattn certs token`"
        )
        left_s = certificate.not_valid_after_utc.timestamp() - self._clock()
        if left_s <= 0:
            raise expired
        self._calls.add(call)
        _CURRENT.set(call)  # for this task, which ends with the call
        expiry = asyncio.get_running_loop().call_later(left_s, call.expel, expired)
        try:
            yield
        except asyncio.CancelledError:
            if call.reason is None:
                raise
            task.uncancel()
            raise call.reason from None
        finally:
            expiry.cancel()
            self._calls.discard(call)

    def _expel_revoked(self) -> None:
        for call in tuple(self._calls):
            try:
                self._revocations.refuse([call.serial], call.name)
            except FedAttnError as reason:
                call.expel(reason)


def _certificate_of(context: Any) -> x509.Certificate | None:
    pems = context.auth_context().get("x509_pem_cert")
    return x509.load_pem_x509_certificate(pems[0]) if pems else None
