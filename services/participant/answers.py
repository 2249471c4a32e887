"""A contributor's side of an asked exchange: its rows stay, and it attends for the publisher."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from fedattn.core.asked import (
    PIECES_AHEAD,
    PieceHeader,
    PieceKind,
    piece_size,
    read_header,
    read_piece,
    write_piece,
)
from fedattn.core.errors import FedAttnError, MalformedFrameError
from fedattn.core.types import KvRows
from fedattn.model.asked import AskedRows
from fedattn.model.layer_cache import LayerCache
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.sealing import Sealing

Compute = Callable[[Callable[[], bytes]], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedNode:
    """What a node answers from.

    Attributes:
        rows: of this node.
        compute: runs the model in a thread, on as many CPU threads as the node lets it.
        spend: told the tokens of each piece of queries, and the bytes of its answer, before it is
            answered; raises `PolicyRefusedError` where the owner lets no more be asked.
    """

    rows: AskedRows
    compute: Compute
    spend: Callable[[int, int], None] = lambda *_: None


class Answers:
    """Answers the publisher's queries in their order, each once the rows of its block are there.

    Lives on the event loop, but for `keep`, which the model thread calls.

    Args:
        node: keeps the rows.
        place: of this node and of the publisher in token order.
        query_shape: query heads of the model, and their size.
        sealing: of the session.
        send: takes a message for the publisher.
    """

    def __init__(
        self,
        node: AskedNode,
        place: tuple[int, int],
        query_shape: tuple[int, int],
        *,
        sealing: Sealing,
        send: Callable[[pb.ExchangeRequest], None],
    ) -> None:
        self._rows, self._compute, self._spend = node.rows, node.compute, node.spend
        self._index, self._publisher = place
        self._query_shape, self._sealing, self._send = query_shape, sealing, send
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[pb.AskedPiece | FedAttnError | None] = asyncio.Queue()
        self._kept = {layer: asyncio.Event() for layer in node.rows.member.answers.layers}
        for layer in node.rows.kept:
            self._kept[layer].set()
        self._next = 0
        self.bytes_sent: dict[int, int] = {}
        self.num_tokens = 0
        self.compute_s = 0.0

    @property
    def kept(self) -> Mapping[int, LayerCache]:
        """Rows by block, for later sessions."""
        return self._rows.kept

    @property
    def has_all(self) -> bool:
        """Whether nothing is left to compute."""
        return self._rows.kept.keys() == self._kept.keys()

    def keep(self, layer: int, rows: KvRows) -> None:
        """Take the rows of a block, from the model thread."""
        self._rows.keep(layer, rows)
        self._loop.call_soon_threadsafe(self._kept[layer].set)

    def add(self, piece: pb.AskedPiece) -> None:
        """Take queries of the publisher.

        Raises:
            MalformedFrameError: it sends more than it may before it has the answers.
        """
        if self._queue.qsize() >= PIECES_AHEAD:
            raise MalformedFrameError(
                f"the publisher sends queries without waiting for answers; {PIECES_AHEAD} pieces "
                f"may wait here"
            )
        self._queue.put_nowait(piece)

    def end(self) -> None:
        """No more queries come."""
        self._queue.put_nowait(None)

    def stop(self, error: FedAttnError | None = None) -> None:
        """The session is over, perhaps with an error: what waits is answered no more."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(error)

    async def run(self) -> None:
        """Answer until no more queries come.

        Raises:
            FrameError: what came is none of the publisher's queries.
            PolicyRefusedError: the owner lets no more be asked.
            FedAttnError: that of `stop`.
        """
        while (piece := await self._queue.get()) is not None:
            if isinstance(piece, FedAttnError):
                raise piece
            header = self._check(piece)
            self._spend(header.num_tokens, piece_size(replace(header, kind=PieceKind.PART)))
            await self._kept[header.layer].wait()
            data = await self._compute(partial(self._answer, piece.data, header))
            self.num_tokens += header.num_tokens
            self.bytes_sent[header.layer] = self.bytes_sent.get(header.layer, 0) + len(data)
            part = pb.AskedPiece(layer=header.layer, number=header.number, data=data)
            self._send(pb.ExchangeRequest(part=part))

    def _check(self, piece: pb.AskedPiece) -> PieceHeader:
        header = read_header(piece.data, "the publisher")
        is_sealed = self._sealing.piece_seal is not None
        shape = header.num_heads, header.head_dim
        expected = (PieceKind.QUERIES, piece.layer, self._query_shape, self._next, is_sealed)
        got = (header.kind, header.layer, shape, header.number, header.is_sealed)
        if got != expected or header.layer not in self._kept:
            raise MalformedFrameError(
                f"queries {piece.number} of the publisher at block {piece.layer} are not those "
                f"awaited here: expected number {self._next}, heads {self._query_shape} and a "
                f"block of {self._rows.member.answers}"
            )
        self._next += 1
        return header

    def _answer(self, data: bytes, header: PieceHeader) -> bytes:
        begun = time.monotonic()
        queries = read_piece(data, header, self._sealing.piece_opener(self._publisher))
        part = self._rows.answer(header.layer, queries.vectors, header.first_position)
        answered = replace(header, kind=PieceKind.PART)
        sent = write_piece(answered, part.output, part.lse, self._sealing.piece_seal)
        self.compute_s += time.monotonic() - begun
        return sent
