"""The publisher's side of an asked exchange: queries out, parts of the attention in."""

import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np

from fedattn.core.asked import (
    PIECES_AHEAD,
    PartialAttention,
    PieceHeader,
    PieceKind,
    read_header,
    read_piece,
    tokens_a_piece,
    write_piece,
)
from fedattn.core.codecs import VectorCodec
from fedattn.core.errors import FrameError, MalformedFrameError
from fedattn.core.routing import Route
from fedattn.core.row_bounds import RowBounds
from fedattn.core.session import SessionState
from fedattn.core.types import FloatArray
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.losses import Losses
from services.participant.sealing import Sealing


class Asking:
    """Queries of one publisher, and what others make of them.

    Bounded: the parts of one layer's queries are awaited at a time, each once a member.

    Args:
        state: routes and members of the session.
        route: of the publisher.
        codec: of queries and parts.
        sealing: of the session.
        losses: of the session.
        bounds: of the model; who answers with more is left out.
        progress_timeout_s: longest wait in which nothing at all comes.
        send: takes a message for those who are asked; from any thread.
    """

    def __init__(  # noqa: PLR0913 - spelt out
        self,
        state: SessionState,
        route: Route,
        *,
        codec: VectorCodec,
        sealing: Sealing,
        losses: Losses,
        bounds: RowBounds,
        progress_timeout_s: float,
        send: Callable[[pb.ExchangeRequest], None],
    ) -> None:
        self._state, self._route = state, route
        self._codec, self._sealing, self._losses = codec, sealing, losses
        self._bounds = bounds
        self._lengths: dict[int, FloatArray] = {}
        self._progress_timeout_s = progress_timeout_s
        self._send = send
        self._asked: dict[int, PieceHeader] = {}
        self._unsent: deque[pb.ExchangeRequest] = deque()
        self._came: dict[tuple[int, int], bytes] = {}
        self._last_arrival = 0.0
        self.num_pieces = 0
        self.wait_s = 0.0

    # -- event loop ------------------------------------------------------------------------------

    def add(self, piece: pb.AskedPiece) -> None:
        """Take a member's part.

        Raises:
            MalformedFrameError: it is not awaited.
        """
        key = piece.sender, piece.number
        with self._losses.changed:
            if piece.sender not in self._route.asked or key in self._came:
                raise MalformedFrameError(f"a part of member {piece.sender} does not belong here")
            self._last_arrival = time.monotonic()
            if piece.number in self._asked and not self._losses.is_out(piece.sender):
                self._came[key] = piece.data
            self._losses.changed.notify_all()

    # -- model thread ----------------------------------------------------------------------------

    def ask(self, layer: int, queries: FloatArray, first_position: int) -> None:
        """As `AskingExchange.ask`."""
        self._losses.check()
        heads, num_tokens, size = queries.shape
        most = tokens_a_piece(heads, size, self._codec)
        seal = self._sealing.piece_seal
        for start in range(0, num_tokens, most):
            some = queries[:, start : start + most]
            header = PieceHeader(
                kind=PieceKind.QUERIES,
                codec=self._codec,
                layer=layer,
                num_heads=heads,
                head_dim=size,
                number=self.num_pieces,
                num_tokens=some.shape[1],
                first_position=first_position + start,
                is_sealed=seal is not None,
            )
            data = write_piece(header, some, seal=seal)
            with self._losses.changed:
                self._asked[header.number] = header
                self._lengths[header.number] = np.linalg.norm(some, axis=-1)
            self.num_pieces += 1
            piece = pb.AskedPiece(layer=layer, number=header.number, data=data)
            self._unsent.append(pb.ExchangeRequest(queries=piece))
        with self._losses.changed:
            self._send_some()

    def _send_some(self) -> None:
        """As many pieces as may be under way."""
        awaited = min((number for number in self._asked if self._waiting_for(number)), default=None)
        while self._unsent:
            number = self._unsent[0].queries.number
            if awaited is not None and number >= awaited + PIECES_AHEAD:
                return
            self._send(self._unsent.popleft())

    def parts(self, layer: int) -> Mapping[int, PartialAttention]:
        """As `AskingExchange.parts`."""
        begun = since = time.monotonic()
        losses = self._losses
        with losses.changed:
            while losses.error is None and (missing := self._missing()):
                self._send_some()
                left_s = max(since, self._last_arrival) + self._progress_timeout_s
                left_s -= time.monotonic()
                if left_s > 0:
                    losses.changed.wait(left_s)
                    continue
                for member in missing:
                    reason = f"no answer for {self._progress_timeout_s:g} s"
                    losses.leave_out(member, layer, reason)
                since = time.monotonic()
            self.wait_s += time.monotonic() - begun
            if losses.error is not None:
                raise losses.error
            asked, came = self._asked, self._came
            self._asked, self._came = {}, {}
        parts = self._read(layer, asked, came)
        self._lengths = {}
        with losses.changed:
            losses.require_enough(layer, [one for one in self._route.asked if one not in parts])
        return parts

    def _missing(self) -> list[int]:
        late = {member for number in self._asked for member in self._waiting_for(number)}
        return sorted(late)

    def _waiting_for(self, number: int) -> list[int]:
        """Members whose part is missing."""
        return [
            member
            for member in self._route.asked
            if not self._losses.is_out(member) and (member, number) not in self._came
        ]

    def _read(
        self, layer: int, asked: Mapping[int, PieceHeader], came: Mapping[tuple[int, int], bytes]
    ) -> dict[int, PartialAttention]:
        """Parts by member, of those of whom all is there; one that cannot be read is left out."""
        parts: dict[int, PartialAttention] = {}
        for member in self._route.asked:
            pieces = [came.get((member, number)) for number in sorted(asked)]
            whole = [data for data in pieces if data is not None]
            if len(whole) < len(pieces):
                continue
            try:
                read = [
                    self._read_one(member, data, header)
                    for data, header in zip(whole, asked.values(), strict=True)
                ]
            except FrameError as error:
                with self._losses.changed:
                    self._losses.leave_out(member, layer, str(error))
                continue
            parts[member] = PartialAttention(
                output=np.concatenate([part.output for part in read], axis=1),
                lse=np.concatenate([part.lse for part in read], axis=1),
            )
        return parts

    def _read_one(self, member: int, data: bytes, asked: PieceHeader) -> PartialAttention:
        name = self._state.member(member).node_id
        header = read_header(data, name)
        opener = self._sealing.piece_opener(member)
        expected = (
            PieceKind.PART, asked.codec, asked.layer, asked.num_heads, asked.head_dim,
            asked.number, asked.num_tokens, asked.first_position, opener is not None,
        )  # fmt: skip
        got = (
            header.kind, header.codec, header.layer, header.num_heads, header.head_dim,
            header.number, header.num_tokens, header.first_position, header.is_sealed,
        )  # fmt: skip
        if got != expected:
            raise MalformedFrameError(f"a part of {name} is none of queries {asked.number}")
        part = read_piece(data, header, opener).part
        num_rows = max(1, self._state.member(member).num_inputs)
        lengths = self._lengths[header.number]
        self._bounds.check_part(part, lengths, header.layer, num_rows, name)
        return part
