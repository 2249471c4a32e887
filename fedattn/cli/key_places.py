"""Where `fedattn keys` keeps API keys: in a file, or in NATS."""

from pathlib import Path
from typing import Annotated

import typer

from fedattn.core.errors import ConfigurationError
from fedattn.runtime.api_keys import KeyFile, KeyStore
from fedattn.runtime.extras import require_extras

Keys = Annotated[
    Path,
    typer.Option("--keys", help="File of the keys.", envvar="FEDATTN_GATEWAY_KEYS", metavar="FILE"),
]
DEFAULT_FILE = Path("keys.json")
Nats = Annotated[
    str | None,
    typer.Option(
        envvar="FEDATTN_GATEWAY_NATS",
        help="URLs of NATS servers, if gateways find their keys there (--shared-keys).",
    ),
]
Certificates = Annotated[
    Path | None,
    typer.Option(
        envvar="FEDATTN_GATEWAY_CERTIFICATES",
        help="Folder of a gateway's certificates, for NATS with TLS.",
        metavar="DIR",
    ),
]
Credentials = Annotated[
    Path | None,
    typer.Option(
        "--nats-credentials",
        envvar="FEDATTN_GATEWAY_NATS_CREDENTIALS",
        help="File with a NATS user's JWT and key.",
        metavar="FILE",
    ),
]
SharedKeyFile = Annotated[
    Path | None,
    typer.Option(
        "--shared-key",
        envvar="FEDATTN_GATEWAY_SHARED_KEY",
        help="File with the key of the gateways; default: shared.key beside the certificates.",
        metavar="FILE",
    ),
]
Federation = Annotated[
    str,
    typer.Option(envvar="FEDATTN_GATEWAY_FEDERATION", help="Name of the federation in NATS."),
]
DEFAULT_FEDERATION = "fedattn"


def key_store(
    keys: Path,
    nats: str | None,
    certificates: Path | None,
    credentials: Path | None,
    shared_key: Path | None,
    federation: str,
) -> KeyStore:
    """The keys in NATS if a URL of it is given, else those in the file.

    Raises:
        ConfigurationError: there is no shared key, or the library of NATS is not installed.
    """
    if not nats:
        return KeyFile(keys)
    require_extras("cluster")
    from fedattn.cluster.access import NatsAccess
    from fedattn.cluster.api_keys import SharedKeys
    from fedattn.cluster.shared_key import SHARED_KEY_FILE, SharedKey
    from fedattn.runtime.settings import split_texts

    if certificates is None and shared_key is None:
        raise ConfigurationError(
            "keys in NATS are sealed; give --shared-key FILE, or the folder of --certificates with "
            "it"
        )
    access = NatsAccess(
        servers=split_texts(nats),
        credentials=credentials,
        certificates=certificates,
        federation=federation,
    )
    return SharedKeys(
        access, SharedKey.read(shared_key or (certificates or Path()) / SHARED_KEY_FILE)
    )
