"""Certificates of a whole network at one place, for demos: a private authority, a folder a name."""

import datetime as dt
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from fedattn.authority.issuing import AUTHORITY_DAYS, AUTHORITY_KEY_FILE, check_name
from fedattn.authority.office import Office
from fedattn.cluster.shared_key import SHARED_KEY_FILE, make_shared_key
from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.core.node_id import AGGREGATOR, GATEWAY
from fedattn.runtime.state import replace_file
from fedattn.wire.certificate_folder import replace_pair
from fedattn.wire.enrolment import private_bytes
from fedattn.wire.security import AUTHORITY_FILE, CERTIFICATE_FILE, OTHERS_ACCESS


def init_certificates(
    folder: Path,
    node_ids: Sequence[str],
    days: int,
    *,
    renew: bool = False,
    owner: int | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Make what is missing: the authority, and certificates of aggregator, gateway and nodes.

    Args:
        folder: gets `ca/` (keep its key off the nodes) and a folder a name, which is all that
            name's machine needs.
        node_ids: names besides `aggregator` and `gateway`.
        days: how long certificates are valid.
        renew: make those anew that are there; the authority stays.
        owner: user id that gets each name's folder; the authority stays with the caller.
        report: told what was made, a line each.

    Raises:
        InvalidRequestError: a name is not allowed.
        ConfigurationError: the folder cannot be written, or its authority not be read.
    """
    for node_id in node_ids:
        check_name(node_id)
    if not 1 <= days <= AUTHORITY_DAYS:
        raise InvalidRequestError(f"days: expected 1 to {AUTHORITY_DAYS}, got {days}")
    is_there = (folder / "ca" / AUTHORITY_KEY_FILE).exists()
    office = Office.open_or_make(folder)
    report(
        f"kept   {office.own_folder}"
        if is_there
        else f"made   {office.own_folder} (whoever has {office.own_folder / AUTHORITY_KEY_FILE} "
        f"can make nodes)"
    )
    try:
        for name in dict.fromkeys((AGGREGATOR, GATEWAY, *node_ids)):
            own = folder / name
            if not renew and (own / CERTIFICATE_FILE).exists():
                _add_shared_key(name, own)
                report(f"kept   {own}")
                continue
            _issue(office, name, own, dt.timedelta(days=days))
            _add_shared_key(name, own)
            if owner is not None:
                for path in (own, *own.iterdir()):
                    os.chown(path, owner, -1)
            report(f"made   {own}")
        office.revoked()  # signed anew if it has aged
        office.hand_out_list()
    except OSError as error:
        raise ConfigurationError(
            f"certificates: cannot write {error.filename}: {error.strerror}"
        ) from error


def _add_shared_key(name: str, folder: Path) -> None:
    """What gateways seal with what they keep in NATS; it stays when certificates are renewed."""
    if name == GATEWAY and not (folder / SHARED_KEY_FILE).exists():
        make_shared_key(folder / SHARED_KEY_FILE)


def _issue(office: Office, name: str, folder: Path, lifetime: dt.timedelta) -> None:
    """Make one key and certificate, in a folder for one user alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & OTHERS_ACCESS:
        folder.chmod(0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    replace_file(folder / AUTHORITY_FILE, office.authority.pem)
    certificate = office.certify(name, key.public_key(), lifetime)
    replace_pair(folder, private_bytes(key), certificate)
