"""The seam between algorithm and network: `KvExchange`, and its in-process implementation."""

import threading
from typing import Protocol

from fedattn.core.codecs import Codec
from fedattn.core.frames import FrameRules, decode_frame, encode_frame
from fedattn.core.routing import Route, route_session
from fedattn.core.spans import SessionLayout
from fedattn.core.types import KvRows, KvShape, concatenate_rows


class KvExchange(Protocol):
    """How one participant of one session trades KV rows with the others.

    One contract suite runs against every implementation.
    """

    @property
    def route(self) -> Route:
        """Layers at which this participant sends and receives."""

    def send(self, layer: int, rows: KvRows) -> None:
        """Hand over the own rows of a layer; called once for each layer in `route.uploads`.

        Returns as soon as the rows are accepted, so computing goes on while they travel.
        May block while earlier rows still wait to leave (back-pressure).

        Raises:
            SessionError: the session has ended.
        """

    def receive(self, layer: int) -> KvRows:
        """Rows of all earlier spans at a layer in `route.receives`, in token order.

        Waits until they have come. A participant that is lost or late is left out.

        Raises:
            SessionError: the session has ended.
            UnavailableError: too few participants are left.
        """


class KvStore:
    """Frames of one session, shared by the in-process exchanges of its participants."""

    def __init__(self, layout: SessionLayout, shape: KvShape, codec: Codec) -> None:
        self.layout = layout
        self.shape = shape
        self.codec = codec
        self.routes = route_session(layout)
        self._frames: dict[tuple[int, int], bytes] = {}
        self._changed = threading.Condition()

    def put(self, index: int, layer: int, frame: bytes) -> None:
        with self._changed:
            self._frames[index, layer] = frame
            self._changed.notify_all()

    def get(self, index: int, layer: int) -> bytes:
        """Wait for a frame. Participants run in token order or in threads of their own."""
        with self._changed:
            self._changed.wait_for(lambda: (index, layer) in self._frames)
            return self._frames[index, layer]

    def rules(self, index: int) -> FrameRules:
        member = self.layout.members[index]
        return FrameRules(
            sender=member.node_id, shape=self.shape, codec=self.codec, span=member.span
        )

    @property
    def uploaded_bytes(self) -> int:
        """Bytes of all frames that left a participant, headers included."""
        with self._changed:
            return sum(len(frame) for frame in self._frames.values())


class InProcessExchange:
    """`KvExchange` through a `KvStore`. Every row passes the codec, as on the network."""

    def __init__(self, store: KvStore, index: int) -> None:
        self._store = store
        self._index = index

    @property
    def route(self) -> Route:
        return self._store.routes[self._index]

    def send(self, layer: int, rows: KvRows) -> None:
        self._store.put(self._index, layer, encode_frame(rows, layer, self._store.codec))

    def receive(self, layer: int) -> KvRows:
        parts = [
            decode_frame(self._store.get(sender, layer), self._store.rules(sender))
            for sender in self.route.senders
        ]
        return concatenate_rows(parts, self._store.shape)
