"""The seam between algorithm and network: `KvExchange`, and its in-process implementation."""

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Protocol, runtime_checkable

from fedattn.core.answer_bounds import AnswerBounds
from fedattn.core.asked import (
    PartialAttention,
    Piece,
    PieceHeader,
    PieceKind,
    query_codec_by_name,
    read_header,
    read_piece,
    write_piece,
)
from fedattn.core.codecs import VectorCodec
from fedattn.core.frames import check_frame, read_positions
from fedattn.core.rotary import Rotary
from fedattn.core.routing import Route, route_session
from fedattn.core.row_scores import RowScorer
from fedattn.core.spans import SessionLayout
from fedattn.core.transfer import frame_spec, place_rows, read_frame, write_frame
from fedattn.core.types import FloatArray, HeadRows, IntArray, KvRows, KvShape, Queries
from fedattn.model.asked import AskedRows


class KvExchange(Protocol):
    """How one participant of one session trades KV rows with the others.

    One contract suite runs against every implementation.
    """

    @property
    def route(self) -> Route:
        """Layers at which this participant sends and receives."""

    def send(self, layer: int, rows: KvRows, queries: Queries) -> None:
        """Hand over the own rows of a layer; called once for each layer in `route.needed`.

        What travels of them is up to the session's compression, and nothing of one that is asked.
        `queries` do not travel: rows are refitted for them.

        Returns as soon as the rows are accepted, so computing goes on while they travel.
        May block while earlier rows still wait to leave (back-pressure).

        Raises:
            SessionError: the session has ended.
        """

    def receive(self, layer: int) -> list[HeadRows]:
        """Rows of all earlier spans at a layer in `route.receives`: a part each, in token order.

        Waits until they have come. A participant that is lost or late is left out.

        Raises:
            SessionError: the session has ended.
            UnavailableError: too few participants are left.
        """


@runtime_checkable
class AskingExchange(KvExchange, Protocol):
    """A `KvExchange` of a publisher that asks others: its route says where."""

    def ask(self, layer: int, queries: FloatArray, first_position: int) -> None:
        """Send queries to those who answer at a layer in `route.asks`; returns at once.

        Args:
            layer: zero-based.
            queries: [Hq, T, D] float32 after RoPE, scaled.
            first_position: global, of the first of the T tokens; the others follow it.

        Raises:
            SessionError: the session has ended.
        """

    def parts(self, layer: int) -> Mapping[int, PartialAttention]:
        """What they made of the queries of the last `ask` at that layer, by place; waits for them.

        A participant that is lost or late is left out, from then on.

        Raises:
            SessionError: the session has ended.
            UnavailableError: too few participants are left.
        """


class KvStore:
    """Frames of one session, shared by the in-process exchanges of its participants.

    Args:
        layout: the session.
        shape: sizes of KV rows.
        rotaries: of every block, for codecs that need keys before RoPE.
        responder: place of a contributor that answers too, as for `route_session`.
        scorer: for the selector `learned`.
        withheld: by participant, tokens of its span whose rows never travel.
        windows: of every block, where contributors are asked.
        query_codec: of queries and what they make of rows.
        bounds: of queries and answers, for `AskedRows`.
    """

    def __init__(  # noqa: PLR0913 - spelt out
        self,
        layout: SessionLayout,
        shape: KvShape,
        rotaries: Sequence[Rotary],
        responder: int | None = None,
        *,
        scorer: RowScorer | None = None,
        withheld: Mapping[int, Collection[int]] = MappingProxyType({}),
        windows: Sequence[int | None] = (),
        query_codec: VectorCodec | None = None,
        bounds: AnswerBounds | None = None,
    ) -> None:
        self.layout = layout
        self.shape = shape
        self.rotaries = rotaries
        self.routes = route_session(layout, responder)
        self.scorer = scorer
        self.withheld = withheld
        self.query_codec = query_codec or query_codec_by_name("fp32")
        self.asked = {
            index: AskedRows(member, rotaries, windows, withheld.get(index, ()), bounds=bounds)
            for index, member in enumerate(layout.members)
            if member.is_asked
        }
        if self.asked and len(windows) != layout.num_layers:
            raise ValueError("contributors that are asked need the window of every block")
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

    @property
    def frames(self) -> dict[tuple[int, int], bytes]:
        """Frames that came so far, by (participant, layer)."""
        with self._changed:
            return dict(self._frames)

    def adopt(self, other: "KvStore") -> None:
        """Take over the frames of a session of the same contributors, texts and plans."""
        self.asked = other.asked
        with self._changed:
            self._frames.update(other.frames)
            self._changed.notify_all()

    def rows(self, index: int, layer: int) -> HeadRows:
        """Decoded rows of a participant at a layer; waits as `get`."""
        member = self.layout.members[index]
        frame = check_frame(self.get(index, layer), frame_spec(member, self.shape, layer))
        rotary = self.rotaries[layer]
        return place_rows(read_frame(frame, member, self.shape, rotary), member, rotary)

    def kept_positions(self) -> dict[tuple[int, int], tuple[IntArray, ...]]:
        """Positions that travelled so far, of each head, by (participant, layer)."""
        kept = {}
        for (index, layer), frame in self.frames.items():
            member = self.layout.members[index]
            heads = read_positions(frame, frame_spec(member, self.shape, layer))
            kept[index, layer] = tuple(head + member.position_offset for head in heads)
        return kept

    def travelled(self) -> dict[tuple[int, int], HeadRows]:
        """Rows as they arrived so far, by (participant, layer)."""
        return {(index, layer): self.rows(index, layer) for index, layer in self.frames}

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
        self._parts: dict[int, dict[int, PartialAttention]] = {}
        self._num_asked = 0

    @property
    def route(self) -> Route:
        return self._store.routes[self._index]

    def send(self, layer: int, rows: KvRows, queries: Queries) -> None:
        store, index = self._store, self._index
        if index in store.asked:
            store.asked[index].keep(layer, rows)
            return
        member, withheld = store.layout.members[index], store.withheld.get(index, ())
        frame = write_frame(
            member, layer, rows, queries, store.rotaries[layer], store.scorer, withheld
        )
        store.put(index, layer, frame)

    def receive(self, layer: int) -> list[HeadRows]:
        return [self._store.rows(sender, layer) for sender in self.route.senders]

    def ask(self, layer: int, queries: FloatArray, first_position: int) -> None:
        """As `AskingExchange.ask`; queries and parts pass the codec, as on the network."""
        heads, num_tokens, size = queries.shape
        header = PieceHeader(
            kind=PieceKind.QUERIES,
            codec=self._store.query_codec,
            layer=layer,
            num_heads=heads,
            head_dim=size,
            number=self._num_asked,
            num_tokens=num_tokens,
            first_position=first_position,
        )
        self._num_asked += 1
        queries = _through(header, queries).vectors
        parts = {}
        for index in self.route.asked:
            part = self._store.asked[index].answer(layer, queries, first_position)
            answered = replace(header, kind=PieceKind.PART)
            parts[index] = _through(answered, part.output, part.lse).part
        self._parts[layer] = parts

    def parts(self, layer: int) -> Mapping[int, PartialAttention]:
        return self._parts.pop(layer)


def _through(header: PieceHeader, vectors: FloatArray, lse: FloatArray | None = None) -> Piece:
    data = write_piece(header, vectors, lse)
    return read_piece(data, read_header(data, "this process"))
