"""`fedattn keys`: who may ask at a gateway."""

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from fedattn.cli.key_places import (
    DEFAULT_FEDERATION,
    DEFAULT_FILE,
    Certificates,
    Credentials,
    Federation,
    Keys,
    Nats,
    SharedKeyFile,
    key_store,
)
from fedattn.cli.options import AsJson
from fedattn.cli.terminal import output, plain_table, write_json
from fedattn.rest.faults import checked
from fedattn.runtime.api_keys import ApiKey, KeyFile

_DAY_S = 86_400


def create(
    name: Annotated[str, typer.Argument(help="Who asks with it, as owners' policies know them.")],
    publisher: Annotated[
        list[str] | None, typer.Option(help="Node it may publish through; default: all.")
    ] = None,
    queries_per_minute: Annotated[
        int | None, typer.Option(help="Requests a minute; default: the gateway's.")
    ] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(help="Queries at once; default: the gateway's.")
    ] = None,
    kv_bytes_per_day: Annotated[
        int | None, typer.Option(help="Bytes of KV a day (UTC); default: the gateway's.")
    ] = None,
    expires_days: Annotated[
        float | None, typer.Option(min=0, help="Days until it is good no more; default: never.")
    ] = None,
    keys: Keys = DEFAULT_FILE,
    nats: Nats = None,
    certificates: Certificates = None,
    credentials: Credentials = None,
    shared_key: SharedKeyFile = None,
    federation: Federation = DEFAULT_FEDERATION,
    as_json: AsJson = False,
) -> None:
    """Make a key, and print it: this once."""
    now = time.time()

    def entry(key_id: str, sha256: str) -> ApiKey:
        return checked(
            ApiKey,
            id=key_id,
            name=name,
            sha256=sha256,
            publishers=tuple(publisher or ()),
            queries_per_minute=queries_per_minute,
            max_concurrent=max_concurrent,
            kv_bytes_per_day=kv_bytes_per_day,
            created_at=now,
            expires_at=None if expires_days is None else now + expires_days * _DAY_S,
        )

    store = key_store(keys, nats, certificates, credentials, shared_key, federation)
    key = store.create(entry)
    if as_json:
        write_json({"key": key, "name": name})
    else:
        print(key)


def list_keys(
    keys: Keys = DEFAULT_FILE,
    nats: Nats = None,
    certificates: Certificates = None,
    credentials: Credentials = None,
    shared_key: SharedKeyFile = None,
    federation: Federation = DEFAULT_FEDERATION,
    as_json: AsJson = False,
) -> None:
    """List the keys there are, without what only their owners know."""
    entries = key_store(keys, nats, certificates, credentials, shared_key, federation).read()
    console = output()
    if as_json:
        write_json([_document(entry) for entry in entries])
        return
    if not entries:
        console.print(f"no keys in {'NATS' if nats else keys}")
        return
    table = plain_table(
        *("id", "name", "publishers", "made", "until"),
        right=("queries/min", "at once", "bytes/day"),
    )
    for entry in entries:
        table.add_row(
            entry.id,
            entry.name,
            ",".join(entry.publishers) or "all",
            _date(entry.created_at),
            "ever" if entry.expires_at is None else _date(entry.expires_at),
            *(
                "" if limit is None else str(limit)
                for limit in (
                    entry.queries_per_minute,
                    entry.max_concurrent,
                    entry.kv_bytes_per_day,
                )
            ),
        )
    console.print(table)


def revoke(
    key: Annotated[str, typer.Argument(metavar="NAME", help="Name or id of keys.")],
    keys: Keys = DEFAULT_FILE,
    nats: Nats = None,
    certificates: Certificates = None,
    credentials: Credentials = None,
    shared_key: SharedKeyFile = None,
    federation: Federation = DEFAULT_FEDERATION,
    as_json: AsJson = False,
) -> None:
    """Take keys out; a running gateway refuses them from the next request on."""
    store = key_store(keys, nats, certificates, credentials, shared_key, federation)
    revoked = store.revoke(key)
    if as_json:
        write_json([_document(entry) for entry in revoked])
        return
    for entry in revoked:
        output().print(f"revoked {entry.id} of {entry.name}")


def import_keys(
    file: Annotated[Path, typer.Argument(help="That `fedattn keys create --keys` made.")],
    keys: Keys = DEFAULT_FILE,
    nats: Nats = None,
    certificates: Certificates = None,
    credentials: Credentials = None,
    shared_key: SharedKeyFile = None,
    federation: Federation = DEFAULT_FEDERATION,
    as_json: AsJson = False,
) -> None:
    """Copy all keys of a file to where gateways find them; whoever has one goes on with it."""
    entries = KeyFile(file).read()
    store = key_store(keys, nats, certificates, credentials, shared_key, federation)
    store.add(entries)
    if as_json:
        write_json([_document(entry) for entry in entries])
        return
    output().print(f"copied {len(entries)} keys of {file}")


def _document(entry: ApiKey) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude={"sha256"})


def _date(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M}"


COMMANDS: dict[str, Callable[..., None]] = {
    "create": create,
    "list": list_keys,
    "revoke": revoke,
    "import": import_keys,
}
"""By their names."""
