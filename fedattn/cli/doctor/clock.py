"""How far this machine's clock is from those it works with."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

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

    measured = list(_offsets(subject))
    if not measured:
        yield skipped("nobody to compare with", "give --gateway, or certificates of an authority")
    for one in measured:
        if abs(one.offset_s) > MAX_AGE_S:
            yield problem(f"{one}; others refuse what is signed here", _SET)
        elif abs(one.offset_s) > MAX_AGE_S / 10:
            yield warning(f"{one}; others refuse from {MAX_AGE_S:g} s on", _SET)
        else:
            yield ok(str(one))


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """How far this clock is ahead of another.

    Attributes:
        who: has the other one.
        offset_s: this clock less the other.
        within_s: how well that is known, seconds either way.
    """

    who: str
    offset_s: float
    within_s: float

    def __str__(self) -> str:
        return (
            f"{self.offset_s:+.1f} s from the {self.who}, known to {self.within_s:.1f} s either way"
        )


def _offsets(subject: Subject) -> Iterator[Offset]:
    """Of all that can be asked; who is out of reach says nothing here."""
    if subject.gateway is not None:
        yield from _compare("gateway", subject.gateway.date)
    if (path := subject.settings.certificates) is not None:
        yield from _compare("authority", lambda: _date_of_authority(path))


def _date_of_authority(path: Path) -> str:
    folder = CertificateFolder(path)
    address = folder.authority
    return "" if address is None else AuthorityClient(address, folder.current.authority).date()


def _compare(who: str, ask: Callable[[], str]) -> Iterator[Offset]:
    began_s = time.time()
    try:
        there_s = parsedate_to_datetime(ask()).timestamp() + _ROUNDING_S
    except (FedAttnError, ValueError):  # the former has a line of its own
        return
    ended_s = time.time()
    yield Offset(
        who=who,
        offset_s=(began_s + ended_s) / 2 - there_s,
        within_s=(ended_s - began_s) / 2 + _ROUNDING_S,
    )
