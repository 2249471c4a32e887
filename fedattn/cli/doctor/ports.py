"""Whether the ports that the node wants are free, or who has them."""

from collections.abc import Iterator

from fedattn.cli.doctor.finding import Found, ok, problem, skipped
from fedattn.cli.doctor.subject import Subject
from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError
from fedattn.runtime.listening import find_free

_SERVICE = "services.participant"


def check_ports(subject: Subject) -> Iterator[Found]:
    """The one address that the settings let the node listen on."""
    address = subject.settings.metrics
    if address is None:
        yield skipped("the node listens nowhere: --metrics is not set")
    else:
        yield _look("--metrics", address)


def _look(flag: str, address: HostPort) -> Found:
    try:
        find_free(address)
    except ConfigurationError as error:
        return _taken(flag, address, error)
    return ok(f"{flag} {address} is free")


def _taken(flag: str, address: HostPort, error: ConfigurationError) -> Found:
    holder = who_listens(address.port)
    if holder is None:
        what, _, remedy = str(error).partition("; ")
        return problem(f"{flag}: {what}", remedy)
    if _SERVICE in holder:
        return ok(f"{flag} {address}: a participant listens there, {holder}")
    return problem(
        f"{flag} {address} is taken by {holder}", "stop that program, or choose another port"
    )


def who_listens(port: int) -> str | None:
    """The process that listens on a port, as far as this user may know; None if nobody does."""
    import psutil

    listening = [
        one
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr[1:] == (port,)
    ]
    if not listening:
        return None
    process_id = next((one.pid for one in listening if one.pid), None)
    if process_id is None:
        return "a process of another user"
    try:
        words = psutil.Process(process_id).cmdline()
    except psutil.Error:
        words = []
    return f"process {process_id} ({' '.join(words[:3]) or 'of another user'})"
