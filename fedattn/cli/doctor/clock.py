"""How far this machine's clock is from those it works with."""

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

from fedattn.cli.doctor.finding import Found, ok, problem, skipped, warning
from fedattn.cli.doctor.subject import Subject
from fedattn.core.errors import FedAttnError
from fedattn.wire.authority_client import AuthorityClient
from fedattn.wire.certificate_folder import CertificateFolder

_SET = "set the clock of this machine, such as with timedatectl set-ntp true"
_ROUNDING_S = 0.5
"""HTTP tells whole seconds (RFC 9110, section 5.6.7)."""


def check_clock(subject: Subject) -> Iterator[Found]:
    """Against the Date of the gateway and of the authority; gRPC tells none of the aggregator."""
    from services.participant.terms import MAX_AGE_S

    found = list(_offsets(subject))
    if not found:
        yield skipped("nobody to compare with", "give --gateway, or certificates of an authority")
    for who, offset_s in found:
        told = f"{offset_s:+.1f} s from the {who} (within {_ROUNDING_S:g} s)"
        if abs(offset_s) > MAX_AGE_S:
            yield problem(f"{told}; others refuse what is signed here", _SET)
        elif abs(offset_s) > MAX_AGE_S / 10:
            yield warning(f"{told}; others refuse from {MAX_AGE_S:g} s on", _SET)
        else:
            yield ok(told)


def _offsets(subject: Subject) -> Iterator[tuple[str, float]]:
    """Who could be asked, and this clock less theirs, seconds; who is out of reach says nothing."""
    if subject.gateway is not None:
        began = time.time()
        try:
            date = subject.gateway.date()
        except FedAttnError:  # has a line of its own
            date = ""
        yield from _compare("gateway", date, began)
    path = subject.settings.certificates
    if path is None:
        return
    try:
        folder = CertificateFolder(path)
        address = folder.authority
        if address is None:
            return
        began = time.time()
        date = AuthorityClient(address, folder.current.authority).date()
    except FedAttnError:
        return
    yield from _compare("authority", date, began)


def _compare(who: str, date: str, began_s: float) -> Iterator[tuple[str, float]]:
    here = (began_s + time.time()) / 2
    try:
        there = parsedate_to_datetime(date).timestamp() + _ROUNDING_S
    except ValueError:
        return
    yield who, here - there
