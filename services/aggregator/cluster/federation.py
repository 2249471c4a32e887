"""The port of the federation, through NATS."""

import asyncio
import secrets
import time

import nats.errors
import structlog
from google.protobuf.message import DecodeError

from fedattn.cluster.access import NatsAccess
from fedattn.cluster.connection import Failure
from fedattn.runtime.background import keep_running
from fedattn.wire.protocol import MAX_MESSAGE_SIZE, PROTOCOL_VERSION
from fedattn.wire.status import raise_if_cancelled
from fedattn.wire.texts import clean_texts
from fedattn.wire.v1.federation_pb2 import AggregatorLease, Letter
from services.aggregator.cluster.connection import FederationConnection
from services.aggregator.cluster.entries import Entries, entry_of
from services.aggregator.cluster.roster import Roster, entry_key, lease_key
from services.aggregator.federation import Told
from services.aggregator.peer import Peer
from services.aggregator.registry import Node

log = structlog.get_logger(__name__)

_MAX_LETTER = MAX_MESSAGE_SIZE - 1024
"""Bytes; below the most that NATS takes if nothing else is configured."""
_MAX_LETTERS, _MAX_WAITING_BYTES = 10_000, 64 << 20
"""Letters that wait to be sent, and how long all of them are."""
_PAUSE_S = 0.5
"""Between two attempts to reach NATS."""
_BEATS = 3
"""Leases are written so often within their time."""
_HELD, _NOT_HELD = b"held", b"not held"


class _NameTakenError(nats.errors.Error):
    """Another aggregator bears the name of this one."""


class NatsFederation:
    """Writes what is joined here, reads what is joined elsewhere. Lives on the event loop.

    There is one state, connected; all that was heard is forgotten when the connection is lost, and
    comes anew with the next one. Meanwhile this aggregator serves the nodes that are joined here.

    Args:
        own: this aggregator.
        access: how NATS is reached.
        lease_s: silence after which an aggregator is gone, seconds.
    """

    def __init__(self, own: Peer, access: NatsAccess, lease_s: float) -> None:
        self.own = own
        self._access, self._lease_s = access, lease_s
        self._entries = Entries()
        self._letters: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(_MAX_LETTERS)
        self._waiting_bytes = 0
        self._connection: FederationConnection | None = None
        self._connected = asyncio.Event()
        self._is_retired = self._is_closed = False
        self._epoch = self._trouble = ""
        self._running: asyncio.Task[None] | None = None
        self._roster = Roster(own.name, lease_s)

    async def begin(self, told: Told) -> None:
        self._told = self._roster.told = told
        self._running = asyncio.create_task(keep_running(self._run))

    def living(self) -> tuple[Peer, ...]:
        own = () if self._is_retired else (self.own,)
        return tuple(sorted((*own, *self._roster.living()), key=lambda one: one.name))

    def announce(self, node: Node) -> None:
        self._entries.note(node)

    def withdraw(self, node: Node) -> None:
        self._entries.drop(node.node_id)

    def write(self, receiver: str, letter: Letter) -> None:
        letter.sender = self.own.name
        content = letter.SerializeToString()
        has_room = not self._letters.full() and self._waiting_bytes < _MAX_WAITING_BYTES
        if len(content) > _MAX_LETTER or not has_room or self._connection is None:
            log.warning("letter_not_sent", aggregator=receiver, size=len(content))
            return
        self._letters.put_nowait((receiver, content))
        self._waiting_bytes += len(content)

    async def asks(self, peer: Peer, node_id: str) -> bool:
        if self._connection is None:
            return False
        try:
            question = node_id.encode()
            return await self._connection.ask(peer.name, question, self._lease_s / 2) == _HELD
        except Failure as error:
            log.info("no_answer", aggregator=peer.name, error=str(error)[:200])
            return False

    async def retire(self) -> None:
        self._is_retired = True
        if self._connection is not None:
            try:
                await self._connection.put(lease_key(self.own.name), None)
            except Failure as error:
                log.info("not_withdrawn", error=str(error)[:200])

    async def close(self) -> None:
        self._is_closed = True
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def wait_connected(self) -> None:
        """Until what is joined here has been written once."""
        await self._connected.wait()

    # -- one connection after the other ----------------------------------------------------------
    #
    # nats-py loses a cancellation while it flushes, and so does asyncio.wait_for before Python 3.12
    # to what came at the same time: each loop looks whether that was so.

    async def _run(self) -> None:
        while not self._is_closed:
            try:
                await self._live()
            except* Failure as errors:
                self._note_trouble(errors.exceptions[0])
            await asyncio.sleep(_PAUSE_S)

    def _note_trouble(self, error: Exception) -> None:
        """Log why there is no connection, once until another reason or a connection comes."""
        text = f"{type(error).__name__}: {error}"[:200]
        if text == self._trouble:
            return
        self._trouble = text
        if isinstance(error, _NameTakenError):
            log.error("name_taken", name=self.own.name, hint="give each aggregator its own name")
        else:
            log.warning("nats_lost", error=text)

    async def _live(self) -> None:
        connection = await FederationConnection.open(self._access)
        try:
            await self._check_name(connection)
            self._begin_epoch(connection)
            await connection.listen(self.own.name, self._take_letter, self._answer)
            await self._write_entries(connection)  # before the lease: they count with it
            if self._is_closed:
                return
            log.info("nats_connected", epoch=self._epoch[:8])
            self._trouble = ""
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(connection.wait_lost())
                tasks.create_task(self._beat(connection))
                tasks.create_task(self._keep_written(connection))
                tasks.create_task(self._send_letters(connection))
                for domain in self._access.domains:
                    tasks.create_task(self._read(connection, domain))
        finally:
            self._connection = None
            self._connected.clear()
            self._roster.forget()
            await connection.close()

    async def _check_name(self, connection: FederationConnection) -> None:
        """Let nobody else bear the name of this one."""
        try:
            await connection.ask(self.own.name, b"", self._lease_s / 2)
        except Failure:
            return  # nobody answers
        raise _NameTakenError(f"another aggregator answers as {self.own.name}")

    def _begin_epoch(self, connection: FederationConnection) -> None:
        """What was written before does not count any more, and nothing of it is to be sent."""
        self._epoch, self._connection = secrets.token_hex(16), connection
        while not self._letters.empty():
            self._letters.get_nowait()
        self._waiting_bytes = 0
        self._entries.reset()
        for node in self._told.joined():
            self._entries.note(node)

    async def _beat(self, connection: FederationConnection) -> None:
        """Write the lease again and again.

        Raises:
            nats.errors.Error: others have lost this one, which was frozen: it has to begin anew.
        """
        lease = AggregatorLease(
            protocol_version=PROTOCOL_VERSION, aggregator=self.own.to_wire(), epoch=self._epoch
        )
        while True:
            raise_if_cancelled()
            if not self._is_retired:
                await connection.put(lease_key(self.own.name), lease.SerializeToString())
                self._connected.set()
            written_at = time.monotonic()
            await asyncio.sleep(self._lease_s / _BEATS)
            if time.monotonic() - written_at > self._lease_s:
                raise nats.errors.StaleConnectionError
            self._entries.refresh()
            self._roster.look()

    async def _keep_written(self, connection: FederationConnection) -> None:
        while True:
            raise_if_cancelled()
            await self._entries.wait()
            await self._write_entries(connection)

    async def _write_entries(self, connection: FederationConnection) -> None:
        for node_id, node in self._entries.take().items():
            value = None if node is None else entry_of(node, self.own.name, self._epoch)
            await connection.put(entry_key(self.own.name, node_id), value)

    async def _send_letters(self, connection: FederationConnection) -> None:
        while True:
            raise_if_cancelled()
            receiver, content = await self._letters.get()
            self._waiting_bytes -= len(content)
            await connection.write(receiver, content)

    async def _read(self, connection: FederationConnection, domain: str) -> None:
        """Read a directory; one of another site may be out of reach for any time."""
        while True:
            raise_if_cancelled()
            try:
                await connection.read(domain, self._roster.take, self._lease_s)
            except Failure as error:
                log.debug("directory_silent", domain=domain, error=str(error)[:200])
            await asyncio.sleep(_PAUSE_S)

    # -- what others ask and write ---------------------------------------------------------------

    def _answer(self, question: bytes) -> bytes:
        return _HELD if self._told.holds(question.decode(errors="replace")) else _NOT_HELD

    def _take_letter(self, content: bytes) -> None:
        try:
            letter = clean_texts(Letter.FromString(content))
        except DecodeError as error:
            log.warning("letter_dropped", error=str(error)[:200])
            return
        if self._roster.find(letter.sender) is None:
            log.warning("letter_dropped", aggregator=letter.sender[:64], why="it does not live")
        else:
            self._told.receive(letter)
