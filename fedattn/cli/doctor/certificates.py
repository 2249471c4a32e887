"""Whether the node's certificates are there, its own, private, in time and not taken back."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from fedattn.cli.doctor.finding import Found, ok, problem, skipped, warning
from fedattn.cli.doctor.subject import Subject
from fedattn.core.errors import AuthorityUnavailableError, IdentityMismatchError
from fedattn.wire.authority_client import AuthorityClient
from fedattn.wire.certificate_folder import CertificateFolder
from fedattn.wire.chain import ChainVerifier
from fedattn.wire.enrolment import own_certificate, own_name
from fedattn.wire.security import OTHERS_ACCESS

_DAY_S = 86_400.0
_SOON_S = 30 * _DAY_S
"""Left of a certificate that nobody renews by itself."""
_RENEWED_BY = 0.3
"""Share of a life that is left: one that renews itself did not, for it does so after half."""
_AGAIN = "make a token with `fedattn certs token` and join again with `fedattn certs join`"


def check_certificates(subject: Subject, clock: Callable[[], float] = time.time) -> Iterator[Found]:
    """The folder of the settings, all that can be known of it here, and its authority's word.

    Args:
        subject: who is examined.
        clock: seconds since 1970.
    """
    path = subject.settings.certificates
    if path is None:
        yield _without(subject)
        return
    yield from _check_modes(path)
    folder = CertificateFolder(path)  # raises what the service would end with
    yield _check_name(subject, folder)
    yield _check_chain(folder)
    yield _check_life(folder, clock())
    yield _check_revocations(folder, clock())
    yield _ask_authority(folder)


def _without(subject: Subject) -> Found:
    if not subject.is_described:
        return skipped("no node was named", "give --certificates DIR to examine a node's")
    if not subject.settings.plaintext:
        return problem(
            "neither certificates nor plaintext is set",
            "give --certificates DIR (`fedattn certs join` makes it), or --plaintext on a network "
            "that nobody else is on",
        )
    address = subject.settings.aggregator.first
    if address.is_loopback:
        return skipped("plaintext, on the loopback")
    return warning(
        f"plaintext to {address}: anyone on the way can read rows and join as any node",
        "give --certificates DIR; `fedattn certs join` makes it",
    )


def _check_modes(path: Path) -> Iterator[Found]:
    if not path.is_dir():
        return  # what reads it says so
    mode = path.stat().st_mode & 0o777
    if mode & OTHERS_ACCESS:
        yield warning(f"others may look into {path} (mode {mode:04o})", f"chmod 700 {path}")


def _check_name(subject: Subject, folder: CertificateFolder) -> Found:
    name = own_name(folder)
    if subject.node_id in {None, name}:
        return ok(f"{folder.path} is of {name}")
    return problem(
        f"{folder.path} is of {name}, the node is {subject.node_id}",
        f"set the node id to {name}, or give the certificates of {subject.node_id}",
    )


def _check_chain(folder: CertificateFolder) -> Found:
    own = own_certificate(folder)
    authorities = x509.load_pem_x509_certificates(folder.current.authority)
    then = (own.not_valid_before_utc.timestamp() + own.not_valid_after_utc.timestamp()) / 2
    verifier = ChainVerifier(authorities, clock=lambda: then)  # time has a line of its own
    try:
        verifier.verify([own.public_bytes(serialization.Encoding.DER)], "tls.crt")
    except IdentityMismatchError as error:
        return problem(
            f"ca.crt did not sign tls.crt: {error}", f"copy both from one place, or {_AGAIN}"
        )
    return ok("signed by the authority in ca.crt")


def _check_life(folder: CertificateFolder, now_s: float) -> Found:
    own = own_certificate(folder)
    begin, end = own.not_valid_before_utc.timestamp(), own.not_valid_after_utc.timestamp()
    if now_s < begin:
        return problem(
            f"valid from {_date(begin)} on, and it is {_date(now_s)} here",
            "set the clock of this machine, such as with timedatectl set-ntp true",
        )
    if now_s > end:
        return problem(f"expired {_span(now_s - end)} ago, on {_date(end)}", _AGAIN)
    told = f"valid for {_span(end - now_s)}, until {_date(end)}"
    if folder.authority is None:
        is_soon = end - now_s < min(_SOON_S, _RENEWED_BY * (end - begin))
        return warning(told, _AGAIN) if is_soon else ok(told)
    if end - now_s < _RENEWED_BY * (end - begin):
        return warning(
            f"{told}, and it was not renewed",
            "see that the node runs, may write this folder, and reaches its authority",
        )
    return ok(f"{told}; renews itself")


def _check_revocations(folder: CertificateFolder, now_s: float) -> Found:
    newest = folder.revocations.newest
    if newest is None:
        return warning(
            "no revoked.crl: whoever was revoked is still believed",
            "copy revoked.crl of the authority into the folder",
        )
    if folder.revocations.is_revoked([own_certificate(folder).serial_number]):
        return problem("this certificate is revoked", _AGAIN)
    if newest.stale_after_s < now_s:
        return warning(
            f"revoked.crl is stale for {_span(now_s - newest.stale_after_s)}",
            "let the authority be reached, or copy its newer revoked.crl",
        )
    return ok(f"revoked.crl has {len(newest.serials)} certificates, not this one")


def _ask_authority(folder: CertificateFolder) -> Found:
    address = folder.authority
    if address is None:
        return skipped("no authority.txt: nobody renews this certificate by itself")
    try:
        pem = AuthorityClient(address, folder.current.authority).revoked()
    except AuthorityUnavailableError as error:
        what, _, remedy = str(error).partition("; ")
        return warning(what, remedy)
    folder.take_revoked(pem)
    if folder.revocations.is_revoked([own_certificate(folder).serial_number]):
        return problem(f"the authority at {address} has revoked this certificate", _AGAIN)
    return ok(f"the authority at {address} answers")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _span(seconds: float) -> str:
    """Such as `3 days` or `20 minutes`."""
    for size, unit in ((_DAY_S, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds:.0f} s"
