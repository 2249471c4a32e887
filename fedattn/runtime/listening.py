"""Listening on every address that a host means, or on none."""

import errno
import socket
from contextlib import ExitStack

from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError

_Address = tuple[socket.AddressFamily, str]
_NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


def open_listeners(address: HostPort) -> list[socket.socket]:
    """Listening sockets on all addresses of the host, on one port.

    Args:
        address: where; port 0 for any port that is free on all of them.

    Raises:
        ConfigurationError: the name is not known, or one of its addresses cannot be bound; none
            is then left open.
    """
    with ExitStack() as opened:
        port, listeners = address.port, []
        candidates = _resolve(address)
        for family, host in candidates:
            try:
                listener = _listen(family, host, port)
            except OSError as error:
                if _is_missing_loopback(host, error) and len(candidates) > 1:
                    continue
                raise _refused(address, host, error) from error
            port = listener.getsockname()[1]
            listeners.append(opened.enter_context(listener))
        opened.pop_all()
        return listeners


def find_free(address: HostPort) -> list[HostPort]:
    """The addresses that the host means, each free at this moment, for others to listen on.

    A single one stays as it is, port 0 too: whoever listens there chooses the port.

    Raises:
        ConfigurationError: as `open_listeners`.
    """
    listeners = open_listeners(address)
    names = [listener.getsockname() for listener in listeners]
    for listener in listeners:
        listener.close()
    return [address] if len(names) == 1 else [HostPort(name[0], name[1]) for name in names]


def _resolve(address: HostPort) -> list[_Address]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise _refused(address, address.host, error) from error
    return list(dict.fromkeys((family, str(name[0])) for family, _, _, _, name in found))


def _listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    is_any = host == "::" and socket.has_dualstack_ipv6()  # as gRPC does: IPv4 too
    return socket.create_server((host, port), family=family, dualstack_ipv6=is_any)


def _is_missing_loopback(host: str, error: OSError) -> bool:
    """Whether a machine without IPv6 gives `localhost` an address that nobody can dial."""
    return host == "::1" and error.errno in _NO_IPV6


def _refused(address: HostPort, host: str, error: OSError) -> ConfigurationError:
    where = "" if host == address.host else f" at {host}"
    reason = (error.strerror or str(error)).partition(" (while ")[0]
    return ConfigurationError(
        f"cannot listen on {address}{where}: {reason}; stop the other program or choose "
        f"another address"
    )
