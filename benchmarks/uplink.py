"""Two places on one machine with a thin link between them that can be cut.

Each place is a network namespace with one interface; between the two stands a third that routes. A
link that is cut there swallows packets: no end of it notices more than silence. Needs root and
iproute2.
"""

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.namespaces import Link, ip, require_namespaces, shape
from fedattn.core.errors import ConfigurationError

_NAMES = Path("/run/netns")
_HOSTS = Path("/etc/netns")
"""`ip netns exec NAME` puts the files of a folder NAME in here in the place of those of /etc."""
_CLONE_NEWNET = 0x40000000


def enter(namespace: str) -> None:
    """Let this thread, and what it starts, be in a network namespace."""
    with (_NAMES / namespace).open() as there:
        _set_namespace(there.fileno())


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """Sockets that this thread makes, and processes that it starts, are in that namespace."""
    with Path("/proc/thread-self/ns/net").open() as before:
        enter(namespace)
        try:
            yield
        finally:
            _set_namespace(before.fileno())


def own_namespace() -> str | None:
    """Name of the network namespace of this thread, if it has one."""
    named = list(_NAMES.glob("*"))
    own = Path("/proc/thread-self/ns/net").stat().st_ino if named else 0
    return next((path.name for path in named if _inode(path) == own), None)


def _inode(path: Path) -> int:
    with suppress(OSError):  # removed since it was listed
        return path.stat().st_ino
    return -1


def _set_namespace(file: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(file, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


@dataclass(frozen=True, slots=True)
class Place:
    """One end of the link.

    Attributes:
        namespace: its name.
        address: of its interface.
        router: that it sends everything to.
        device: the router's interface to it.
    """

    namespace: str
    address: str
    router: str
    device: str


@dataclass(frozen=True, slots=True)
class Uplink:
    """Two places, and what is between them.

    Attributes:
        hub: whose address the other knows by the name `nats`.
        site: at the other end.
        between: namespace of the router.
    """

    hub: Place
    site: Place
    between: str

    def cut(self) -> None:
        """Nothing passes any more; whoever sends is not told."""
        for place in (self.hub, self.site):
            ip("-n", self.between, "route", "replace", "blackhole", f"{place.address}/32")

    def heal(self) -> None:
        """All passes again."""
        for place in (self.hub, self.site):
            ip("-n", self.between, "route", "delete", "blackhole", f"{place.address}/32")

    def set_link(self, link: Link) -> None:
        """Its rate, each way, from now on."""
        for place in (self.hub, self.site):
            shape(place.device, link, self.between)

    def open(self) -> None:
        """Make the namespaces."""
        ip("netns", "add", self.between)
        for place in (self.hub, self.site):
            inside = "uplink"  # the place's only interface
            ip("netns", "add", place.namespace)
            ip(
                *("-n", place.namespace, "link", "add", inside, "type", "veth"),
                *("peer", "name", place.device, "netns", self.between),
            )
            ip("-n", self.between, "address", "add", f"{place.router}/24", "dev", place.device)
            ip("-n", self.between, "link", "set", place.device, "up")
            ip("-n", place.namespace, "address", "add", f"{place.address}/24", "dev", inside)
            for device in ("lo", inside):
                ip("-n", place.namespace, "link", "set", device, "up")
            ip("-n", place.namespace, "route", "add", "default", "via", place.router)
            hosts = _HOSTS / place.namespace / "hosts"
            hosts.parent.mkdir(parents=True)
            hosts.write_text(f"127.0.0.1 localhost\n{self.hub.address} nats\n")
        with entered(self.between):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def close(self) -> None:
        """Remove what was made."""
        for name in (self.hub.namespace, self.site.namespace, self.between):
            shutil.rmtree(_HOSTS / name, ignore_errors=True)
            with suppress(ConfigurationError):  # it was not made
                ip("netns", "delete", name)


@contextmanager
def uplink() -> Iterator[Uplink]:
    """Two places with a link that has no limits at first; processes in them must end before it.

    Raises:
        ConfigurationError: this machine or user cannot make them.
    """
    require_namespaces()
    names = [f"fedattn-{os.getpid()}-{end}" for end in ("hub", "site", "between")]
    hub = Place(names[0], "10.78.1.2", "10.78.1.1", "to-hub")
    site = Place(names[1], "10.78.2.2", "10.78.2.1", "to-site")
    link = Uplink(hub, site, names[2])
    try:
        try:
            link.open()
        except OSError as error:
            raise ConfigurationError(f"no network namespaces here: {error}") from error
        yield link
    finally:
        link.close()
