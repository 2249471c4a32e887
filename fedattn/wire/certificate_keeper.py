"""Keeps a service's certificates good while it runs: new files, revocations, renewal."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from fedattn.core.errors import FedAttnError
from fedattn.runtime.background import keep_running
from fedattn.runtime.state import replace_file
from fedattn.wire.authority_client import AuthorityClient
from fedattn.wire.certificate_folder import REVOKED_FILE, CertificateFolder
from fedattn.wire.enrolment import own_certificate, renew
from fedattn.wire.security import OwnCertificates

_RENEWED_AT = 0.5
"""Share of a certificate's life after which its holder renews it."""
_PAUSE_S, _MAX_PAUSE_S = 30.0, 3600.0
"""Before the next try to renew; doubled by each failure."""

log = structlog.get_logger(__name__)


async def keep_certificates(certificates: OwnCertificates | None, interval_s: float) -> None:
    """Look after a folder for ever; ends at once if there is none.

    Args:
        certificates: of the service.
        interval_s: time between two looks.
    """
    if not isinstance(certificates, CertificateFolder):
        return
    keeper = CertificateKeeper(certificates)
    while True:
        await keeper.look()
        await asyncio.sleep(interval_s)


@asynccontextmanager
async def kept_certificates(
    certificates: OwnCertificates | None, interval_s: float
) -> AsyncIterator[None]:
    """Look after a folder as long as the block runs."""
    keeping = asyncio.create_task(
        keep_running(lambda: keep_certificates(certificates, interval_s), interval_s)
    )
    try:
        yield
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


class CertificateKeeper:
    """What is done at each look.

    Args:
        folder: of the service.
        clock: seconds since 1970.
    """

    def __init__(self, folder: CertificateFolder, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock
        self._tried_at, self._pause_s = float("-inf"), _PAUSE_S
        self._told: dict[str, str] = {}

    async def look(self) -> None:
        """Take new files; where the folder names an authority, ask what is revoked, and renew."""
        self._folder.look()
        if (address := self._folder.authority) is not None:
            client = AuthorityClient(address, self._folder.current.authority)
            await self._hear_revoked(client)
            if self._is_due():
                await self._renew(client)
        self._tell_state()

    async def _hear_revoked(self, client: AuthorityClient) -> None:
        """Go by the authority's list; where it cannot be had, by the last one.

        The lives of certificates bound what that costs (ADR 0030).
        """
        try:
            pem = await asyncio.to_thread(client.revoked)
            if self._folder.take_revoked(pem):
                await asyncio.to_thread(replace_file, self._folder.path / REVOKED_FILE, pem)
            self._tell("revocations_not_heard", "")
        except FedAttnError as error:
            self._tell("revocations_not_heard", str(error))
        except OSError as error:  # what is known counts; after a restart it is asked for again
            self._tell("revocations_not_kept", f"{self._folder.path}: {error.strerror}")

    def _is_due(self) -> bool:
        own, now = own_certificate(self._folder), self._clock()
        begin, end = own.not_valid_before_utc.timestamp(), own.not_valid_after_utc.timestamp()
        return now >= begin + _RENEWED_AT * (end - begin) and now >= self._tried_at + self._pause_s

    async def _renew(self, client: AuthorityClient) -> None:
        self._tried_at = self._clock()
        try:
            await asyncio.to_thread(renew, self._folder, client)
        except FedAttnError as error:
            self._pause_s = min(2 * self._pause_s, _MAX_PAUSE_S)
            log.warning("not_renewed", error=str(error), again_in_s=self._pause_s)
        else:
            self._pause_s = _PAUSE_S
            self._folder.look()

    def _tell_state(self) -> None:
        newest, own = self._folder.revocations.newest, own_certificate(self._folder)
        is_stale = newest is not None and newest.stale_after_s < self._clock()
        self._tell("revocations_stale", "get a newer revoked.crl" if is_stale else "")
        is_revoked = self._folder.revocations.is_revoked([own.serial_number])
        hint = "this service's own certificate is revoked; join again with a new token"
        self._tell("revoked", hint if is_revoked else "")

    def _tell(self, event: str, reason: str) -> None:
        """Warn of a state when it begins or changes, and say when it is over."""
        before = self._told.get(event, "")
        self._told[event] = reason
        if reason and reason != before:
            log.warning(event, reason=reason)
        elif before and not reason:
            log.info("over", state=event)
