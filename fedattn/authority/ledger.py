"""What the authority remembers: certificates it issued, tokens it made. Survives restarts."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from fedattn.core.errors import (
    CertificateRevokedError,
    ConfigurationError,
    IdentityMismatchError,
    InvalidRequestError,
    NodeBusyError,
)

LEDGER_FILE = "ledger.db"
MAX_VALID_OF_A_NAME = 16
"""Certificates of one name that count at once: a node renews one at a time."""
MAX_TOKENS = 10_000
_FORGET_S = 24 * 3600.0
"""What has expired is remembered so long, for clocks that run late."""
_TABLES = """
CREATE TABLE IF NOT EXISTS issued
    (serial TEXT PRIMARY KEY, name TEXT, issued_at REAL, expires_at REAL, revoked_at REAL);
CREATE INDEX IF NOT EXISTS issued_by_name ON issued (name);
CREATE TABLE IF NOT EXISTS tokens (digest TEXT PRIMARY KEY, node_id TEXT, expires_at REAL);
CREATE TABLE IF NOT EXISTS lists (number INTEGER PRIMARY KEY);
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate that was issued, and what is known of it now.

    Attributes:
        serial: its number.
        name: whom it is of.
        issued_at: seconds since 1970, as the other times.
        expires_at: when it ends by itself.
        revoked_at: when it was taken back; None if it was not.
    """

    serial: int
    name: str
    issued_at: float
    expires_at: float
    revoked_at: float | None

    @property
    def state(self) -> str:
        """In a word, now."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at <= time.time() else "valid"


def same_name(name: str) -> str:
    """One form of all names that TLS takes for the same: case and a last dot make no difference."""
    return name.lower().rstrip(".")


class Ledger:
    """The record of one authority. Safe against other threads and processes.

    Args:
        folder: of the authority.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = folder / LEDGER_FILE, clock
        try:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise ConfigurationError(
                f"certificates: cannot write {self._path}: {error.strerror}"
            ) from error
        with self._changing() as ledger:
            ledger.executescript(_TABLES)

    def record(
        self,
        name: str,
        certificate: x509.Certificate,
        *,
        renewed: int | None = None,
        token: str | None = None,
    ) -> None:
        """Remember a certificate before it is handed out.

        Args:
            name: whom it is of.
            certificate: as issued.
            renewed: serial number of the one that it follows, if any.
            token: secret of the token that it is for, if any; used up with it.

        Raises:
            IdentityMismatchError: the token is used up, expired, or for another name.
            InvalidRequestError: another node's name differs by case or a last dot alone.
            CertificateRevokedError: that one is revoked, or was never issued here.
            NodeBusyError: too many of that name count already.
        """
        now = self._clock()
        with self._changing() as ledger:
            if renewed is not None:
                _check_good(ledger, name, renewed)
            else:
                if token is not None:
                    _redeem(ledger, name, token, now)
                _check_alone(ledger, name)
            ledger.execute("DELETE FROM issued WHERE expires_at < ?", (now - _FORGET_S,))
            (valid,) = ledger.execute(
                "SELECT count(*) FROM issued WHERE name = ? AND expires_at > ? "
                "AND revoked_at IS NULL",
                (name, now),
            ).fetchone()
            if valid >= MAX_VALID_OF_A_NAME:
                raise NodeBusyError(
                    f"{name} has {valid} certificates that count, at most {MAX_VALID_OF_A_NAME} "
                    f"may; revoke them with `fedattn certs revoke {name}`, and join again"
                )
            expires_at = certificate.not_valid_after_utc.timestamp()
            row = (str(certificate.serial_number), name, now, expires_at)
            ledger.execute("INSERT INTO issued VALUES (?, ?, ?, ?, NULL)", row)

    def add_token(self, node_id: str, secret: str, lifetime_s: float) -> None:
        """Remember a token, by its hash.

        Raises:
            InvalidRequestError: as `record`.
            NodeBusyError: too many wait to be used.
        """
        now = self._clock()
        with self._changing() as ledger:
            ledger.execute("DELETE FROM tokens WHERE expires_at < ?", (now,))
            _check_alone(ledger, node_id)
            (waiting,) = ledger.execute("SELECT count(*) FROM tokens").fetchone()
            if waiting >= MAX_TOKENS:
                raise NodeBusyError(f"{waiting} tokens wait to be used, at most {MAX_TOKENS} may")
            row = (_digest(secret), node_id, now + lifetime_s)
            ledger.execute("INSERT INTO tokens VALUES (?, ?, ?)", row)

    def revoke(self, name: str) -> int:
        """Take back all that count of a name, and its tokens; how many certificates that were."""
        now = self._clock()
        with self._changing() as ledger:
            ledger.execute("DELETE FROM tokens WHERE node_id = ?", (name,))
            return ledger.execute(
                "UPDATE issued SET revoked_at = ? WHERE name = ? AND revoked_at IS NULL "
                "AND expires_at > ?",
                (now, name, now),
            ).rowcount

    def issued(self) -> list[Issued]:
        """All that are remembered, by name, the oldest first."""
        with self._changing() as ledger:
            return _read(ledger)

    @contextmanager
    def next_list(self) -> Iterator[tuple[int, list[Issued]]]:
        """Number and entries of the next list; nobody revokes or lists more within the block."""
        with self._changing() as ledger:
            (last,) = ledger.execute("SELECT coalesce(max(number), 0) FROM lists").fetchone()
            number = max(int(self._clock() * 1000), last + 1)  # grows though the ledger be lost
            ledger.execute("INSERT INTO lists VALUES (?)", (number,))
            ledger.execute("DELETE FROM lists WHERE number < ?", (number,))
            yield number, [one for one in _read(ledger) if one.revoked_at is not None]

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction of its own."""
        try:
            with closing(sqlite3.connect(self._path, isolation_level=None)) as ledger:
                ledger.execute("BEGIN IMMEDIATE")
                with ledger:
                    yield ledger
        except sqlite3.Error as error:
            raise ConfigurationError(
                f"certificates: the ledger {self._path} cannot be read or written: {error}"
            ) from error


def _check_good(ledger: sqlite3.Connection, name: str, serial: int) -> None:
    found = ledger.execute(
        "SELECT 1 FROM issued WHERE serial = ? AND revoked_at IS NULL", (str(serial),)
    )
    if found.fetchone() is None:
        raise CertificateRevokedError(
            f"the certificate of {name} is revoked, or is not in the authority's ledger; make a "
            f"token with `fedattn certs token {name}`, and join with it"
        )


def _check_alone(ledger: sqlite3.Connection, name: str) -> None:
    names = ledger.execute("SELECT name FROM issued UNION SELECT node_id FROM tokens")
    for (other,) in names:
        if other != name and same_name(other) == same_name(name):
            raise InvalidRequestError(
                f"node id {name!r} would pass for {other!r}, which is in the ledger; choose another"
            )


def _redeem(ledger: sqlite3.Connection, name: str, secret: str, now: float) -> None:
    """Succeeds for one caller of all, and only for the node that the token was made for."""
    used = ledger.execute(
        "DELETE FROM tokens WHERE digest = ? AND node_id = ? AND expires_at > ?",
        (_digest(secret), name, now),
    )
    if used.rowcount != 1:
        raise IdentityMismatchError(
            f"the token for {name} is used up, expired or was never made; make another with "
            f"`fedattn certs token {name}`"
        )


def _read(ledger: sqlite3.Connection) -> list[Issued]:
    rows = ledger.execute(
        "SELECT serial, name, issued_at, expires_at, revoked_at FROM issued "
        "ORDER BY name, issued_at"
    )
    return [
        Issued(serial=int(serial), name=name, issued_at=at, expires_at=until, revoked_at=revoked)
        for serial, name, at, until, revoked in rows
    ]


def _digest(secret: str) -> str:
    """Secrets are random and long, so a plain hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()
