"""API keys of a gateway: made once, kept as digests in a file, looked up by their id."""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.core.node_id import check_node_id
from fedattn.core.request import check_label
from fedattn.runtime.state import failing_in_one_line, locked, replace_file

PREFIX = "fa_"
MAX_KEYS = 10_000
_ID_BYTES = 6
_SECRET_BYTES = 32
_KEY = re.compile(r"fa_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")

NodeId = Annotated[str, AfterValidator(check_node_id)]


def check_name(name: str) -> str:
    """The name, if owners' policies can know it as a subject; raises InvalidRequestError if not."""
    if not name:
        raise InvalidRequestError("a key without a name is nobody's; name who asks with it")
    return check_label("name", name)


class ApiKey(BaseModel):
    """What is known of one key. The key itself is not.

    A digest without salt or stretching is enough: the key is 256 random bits, so there is no list
    of likely keys to try, as there is of passwords.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    name: Annotated[str, AfterValidator(check_name)]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    publishers: tuple[NodeId, ...] = ()
    queries_per_minute: int | None = Field(None, ge=1)
    max_concurrent: int | None = Field(None, ge=1)
    kv_bytes_per_day: int | None = Field(None, ge=1)
    created_at: float
    expires_at: float | None = None


_KEYS = TypeAdapter(tuple[ApiKey, ...])


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The keys in a file, which only its owner reads; written whole, by one process at a time."""

    path: Path
    clock: Callable[[], float] = time.time

    def read(self) -> tuple[ApiKey, ...]:
        """All keys, expired ones too; none if there is no file.

        Raises:
            ConfigurationError: it cannot be read, or holds something else.
        """
        with self._failing_in_one_line():
            return self._read()

    def create(self, entry: Callable[[str, str], ApiKey]) -> str:
        """Make a key, and return it: nothing can tell it again.

        Args:
            entry: makes what is kept, from id and digest.

        Raises:
            ConfigurationError: the file cannot be read or written, or is full.
        """
        key_id, sha256, key = new_key()
        with self._changing() as entries:
            if len(entries) >= MAX_KEYS:
                raise ConfigurationError(f"{self.path} holds {MAX_KEYS} keys; revoke some")
            entries.append(entry(key_id, sha256))
        return key

    def add(self, entries: Iterable[ApiKey]) -> None:
        """Keep keys that were made elsewhere; raises ConfigurationError as `create`."""
        added = {entry.id: entry for entry in entries}
        with self._changing() as kept:
            kept[:] = [entry for entry in kept if entry.id not in added]
            if len(kept) + len(added) > MAX_KEYS:
                raise ConfigurationError(f"{self.path} would hold over {MAX_KEYS} keys")
            kept.extend(added.values())

    def revoke(self, name_or_id: str) -> tuple[ApiKey, ...]:
        """Take the key of this id out, or all of this name; returns them.

        Raises:
            InvalidRequestError: there is none.
            ConfigurationError: the file cannot be read or written.
        """
        with self._changing() as entries:
            revoked = choose_revoked(entries, name_or_id)
            entries[:] = [entry for entry in entries if entry not in revoked]
        return revoked

    @contextmanager
    def _changing(self) -> Iterator[list[ApiKey]]:
        lock = self.path.with_name(f"{self.path.name}.lock")
        with self._failing_in_one_line(), locked(lock):
            entries = list(self._read())
            yield entries
            replace_file(self.path, _KEYS.dump_json(tuple(entries), indent=1) + b"\n")

    def _read(self) -> tuple[ApiKey, ...]:
        try:
            return _KEYS.validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return ()
        except (ValidationError, InvalidRequestError):
            raise ConfigurationError(
                f"keys {self.path}: expected a list that `fedattn keys create` made, got something "
                f"else; move the file away, and make new keys"
            ) from None

    def _failing_in_one_line(self) -> AbstractContextManager[None]:
        return failing_in_one_line("keys", self.path, "let this user do so")


class KeyStore(Protocol):
    """Where API keys are kept."""

    def read(self) -> tuple[ApiKey, ...]:
        """All keys, expired ones too."""

    def create(self, entry: Callable[[str, str], ApiKey]) -> str:
        """Make a key, whose entry is made from id and digest, and return it."""

    def revoke(self, name_or_id: str) -> tuple[ApiKey, ...]:
        """Take the key of this id out, or all of this name; returns them."""

    def add(self, entries: Iterable[ApiKey]) -> None:
        """Keep keys that were made elsewhere; those of the same ids are replaced."""


def new_key() -> tuple[str, str, str]:
    """Id, digest and whole text of a key that nobody has yet."""
    key_id = secrets.token_hex(_ID_BYTES)
    key = f"{PREFIX}{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return key_id, _digest(key), key


def choose_revoked(entries: Iterable[ApiKey], name_or_id: str) -> tuple[ApiKey, ...]:
    """The key of this id, or all of this name; raises InvalidRequestError if there is none."""
    revoked = tuple(entry for entry in entries if name_or_id in {entry.id, entry.name})
    if not revoked:
        raise InvalidRequestError(
            f"no key has the name or id {name_or_id[:80]!r}; `fedattn keys list` shows those there "
            f"are"
        )
    return revoked


def id_of(given: str) -> str:
    """The id in what may be a key; empty if it is none."""
    match = _KEY.fullmatch(given)
    return match[1] if match else ""


def find_key(keys: Mapping[str, ApiKey], given: str, now: float) -> ApiKey | None:
    """The key that was given, unless it is unknown or has expired.

    Args:
        keys: by id. An id is no secret; digests are compared in constant time.
        given: the whole key.
        now: seconds since the epoch.
    """
    entry = keys.get(id_of(given))
    if entry is None or not hmac.compare_digest(entry.sha256, _digest(given)):
        return None
    return entry if entry.expires_at is None or now < entry.expires_at else None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
