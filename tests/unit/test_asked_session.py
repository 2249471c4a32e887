"""An asked exchange at its two ends and between: what is awaited, and who is to blame for what."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fedattn.core.asked import (
    PIECES_AHEAD,
    PieceHeader,
    PieceKind,
    query_codec_by_name,
    write_piece,
)
from fedattn.core.errors import (
    FedAttnError,
    InvalidRequestError,
    MalformedFrameError,
    PolicyRefusedError,
    SessionAbortedError,
)
from fedattn.core.plans import NOWHERE, RolePlans, SyncPlan
from fedattn.core.row_bounds import RowBounds
from fedattn.core.session import MemberState, SessionState
from fedattn.core.spans import build_layout
from fedattn.core.types import KvRows, KvShape
from fedattn.model.asked import AskedRows
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.answers import Answers, AskedNode
from services.participant.asking import Asking
from services.participant.losses import Losses
from services.participant.sealing import NoSealing
from tests.harness.samples import ROTARY

SHAPE = KvShape(num_layers=3, num_kv_heads=1, head_dim=2)
HEADS = 2
FP32 = query_codec_by_name("fp32")
NEVER_S = 3600.0
BOUNDS = RowBounds(
    keys=np.full((3, 1), 10.0, np.float32),
    values=np.full((3, 1), 10.0, np.float32),
    queries=np.full((3, HEADS), 10.0, np.float32),
)
AT_ONCE_S = 1e-6


def make_state() -> SessionState:
    """a and c are asked at blocks 1 and 2; b sends rows, to the publisher alone."""
    plans = RolePlans(contributors=NOWHERE, publisher=SyncPlan((0, 1, 2)), asked=SyncPlan((1, 2)))
    layout = build_layout(
        num_layers=3,
        prefix_len=1,
        contributors=[("a", 2), ("b", 1), ("c", 3)],
        publisher=("publisher", 2),
        plans=plans,
        asked=("a", "c"),
    )
    return SessionState(layout, SHAPE)


def piece(
    number: int, layer: int = 1, kind: PieceKind = PieceKind.QUERIES, **changes: Any
) -> bytes:
    header = PieceHeader(
        kind=kind, codec=FP32, layer=layer, num_heads=HEADS, head_dim=2, number=number,
        num_tokens=2, first_position=7,
    )  # fmt: skip
    header = replace(header, **changes)
    vectors = np.zeros((header.num_heads, header.num_tokens, header.head_dim), np.float32)
    lse = np.zeros(vectors.shape[:2], np.float32) if kind is PieceKind.PART else None
    return write_piece(header, vectors, lse)


# -- between -------------------------------------------------------------------------------------


def test_queries_go_to_all_who_are_asked_and_parts_are_counted() -> None:
    state = make_state()
    for ledger in state.ledgers:
        ledger.move(MemberState.ATTACHED)
    assert state.take_queries(0, 1, 100) == (0, 2)
    state.take_part(0, 0, 1, 60)
    state.ledgers[2].move(MemberState.LOST)
    assert state.take_queries(1, 2, 100) == (0,)
    assert state.ledgers[0].num_pieces == 1
    assert state.ledgers[0].bytes_up == {1: 60}
    assert state.ledgers[-1].bytes_up == {1: 100, 2: 100}


@pytest.mark.parametrize(("number", "layer"), [(1, 1), (0, 0)])
def test_queries_out_of_turn_or_at_another_block_are_refused(number: int, layer: int) -> None:
    with pytest.raises(InvalidRequestError, match="are not awaited"):
        make_state().take_queries(number, layer, 1)


@pytest.mark.parametrize(("sender", "number", "layer"), [(1, 0, 1), (0, 1, 1), (0, 0, 0)])
def test_parts_of_nobody_or_of_nothing_are_refused(sender: int, number: int, layer: int) -> None:
    state = make_state()
    state.take_queries(0, 1, 1)
    with pytest.raises(InvalidRequestError, match="answers queries"):
        state.take_part(sender, number, layer, 1)


def test_who_lags_behind_is_known() -> None:
    state = make_state()
    for number in range(3):
        state.take_queries(number, 1, 1)
    state.take_part(0, 0, 1, 1)
    assert state.lagging(1) == (0, 2)
    assert state.lagging(2) == (2,)
    assert state.lagging(3) == ()


def test_a_part_comes_once() -> None:
    state = make_state()
    state.take_queries(0, 1, 1)
    state.take_part(0, 0, 1, 1)
    with pytest.raises(InvalidRequestError, match="expected 1 of 1 that were sent"):
        state.take_part(0, 0, 1, 1)


def test_who_is_asked_sends_no_rows_and_needs_the_keys_of_the_publisher() -> None:
    state = make_state()
    assert state.routes[0].uploads == state.routes[2].uploads == frozenset()
    assert state.routes[1].uploads == frozenset({0, 1, 2})
    assert not state.is_idle(0)
    assert state.key_receivers(3) == (0, 2)
    assert state.key_receivers(0) == state.key_receivers(1) == (3,)
    assert state.successors(2) == (3,)


# -- the publisher -------------------------------------------------------------------------------


def make_asking(
    sent: list[pb.ExchangeRequest], timeout_s: float = NEVER_S, **losses: object
) -> tuple[Asking, Losses]:
    state = make_state()
    known = Losses(state, **losses)  # type: ignore[arg-type]
    asking = Asking(
        state,
        state.routes[-1],
        codec=FP32,
        sealing=NoSealing(),
        losses=known,
        bounds=BOUNDS,
        progress_timeout_s=timeout_s,
        send=sent.append,
    )
    return asking, known


def answer(asking: Asking, member: int, number: int, data: bytes | None = None) -> None:
    data = piece(number, kind=PieceKind.PART) if data is None else data
    asking.add(pb.AskedPiece(sender=member, layer=1, number=number, data=data))


def queries() -> np.ndarray:
    return np.zeros((HEADS, 2, 2), np.float32)


def test_parts_come_by_member_once_all_have_answered() -> None:
    sent: list[pb.ExchangeRequest] = []
    asking, _ = make_asking(sent)
    asking.ask(1, queries(), 7)
    assert [message.queries.number for message in sent] == [0]
    answer(asking, 2, 0)
    answer(asking, 0, 0)
    assert list(asking.parts(1)) == [0, 2]
    asking.ask(2, queries(), 7)
    assert sent[-1].queries.number == 1


def test_a_member_that_is_lost_is_left_out_from_that_block_on() -> None:
    asking, losses = make_asking([])
    asking.ask(1, queries(), 7)
    answer(asking, 0, 0)
    losses.mark_lost(2, "its connection broke")
    assert list(asking.parts(1)) == [0]
    assert losses.left_out() == {2: (1, "its connection broke")}
    asking.ask(2, queries(), 7)
    answer(asking, 0, 1, piece(1, 2, PieceKind.PART))
    assert list(asking.parts(2)) == [0]


def test_a_member_that_says_nothing_is_left_out_in_time() -> None:
    asking, losses = make_asking([], AT_ONCE_S)
    asking.ask(1, queries(), 7)
    answer(asking, 0, 0)
    assert list(asking.parts(1)) == [0]
    assert losses.late_members() == {2: (1, "no answer for 1e-06 s")}
    answer(asking, 2, 0)  # too late, and no harm


@pytest.mark.parametrize(
    "data",
    [
        piece(0),  # queries, not a part
        piece(1, kind=PieceKind.PART),
        piece(0, 2, PieceKind.PART),
        piece(0, kind=PieceKind.PART, num_tokens=1),
        piece(0, kind=PieceKind.PART)[:-1],
        b"nothing of the kind",
    ],
)
def test_a_part_that_is_none_leaves_its_sender_out_and_names_it(data: bytes) -> None:
    asking, losses = make_asking([])
    asking.ask(1, queries(), 7)
    answer(asking, 0, 0)
    answer(asking, 2, 0, data)
    assert list(asking.parts(1)) == [0]
    assert losses.left_out().keys() == {2}


@pytest.mark.parametrize(("size", "lse"), [(1e30, 0.0), (100.0, 0.0), (0.0, 1e30), (0.0, 20.0)])
def test_a_part_that_no_rows_of_the_model_make_leaves_its_sender_out(
    size: float, lse: float
) -> None:
    asking, losses = make_asking([])
    asking.ask(1, queries(), 7)
    answer(asking, 0, 0)
    header = PieceHeader(
        kind=PieceKind.PART, codec=FP32, layer=1, num_heads=HEADS, head_dim=2, number=0,
        num_tokens=2, first_position=7,
    )  # fmt: skip
    output = np.full((HEADS, 2, 2), size, np.float32)
    answer(asking, 2, 0, write_piece(header, output, np.full((HEADS, 2), lse, np.float32)))
    assert list(asking.parts(1)) == [0]
    assert "more than rows of this model can make" in losses.left_out()[2][1]


def test_parts_of_who_is_not_asked_are_refused() -> None:
    asking, _ = make_asking([])
    asking.ask(1, queries(), 7)
    with pytest.raises(MalformedFrameError, match="member 1 does not belong here"):
        answer(asking, 1, 0)


def test_the_end_of_the_session_ends_the_wait() -> None:
    asking, losses = make_asking([])
    asking.ask(1, queries(), 7)
    losses.end(SessionAbortedError("over"))
    with pytest.raises(SessionAbortedError, match="over"):
        asking.parts(1)


def test_long_questions_go_in_pieces_and_their_parts_are_joined() -> None:
    sent: list[pb.ExchangeRequest] = []
    asking, losses = make_asking(sent)
    losses.mark_lost(2, "gone")
    wide = np.zeros((HEADS, 80_000, 2), np.float32)
    asking.ask(1, wide, 7)
    assert 1 < len(sent) < PIECES_AHEAD
    for message in sent:
        number = message.queries.number
        tokens = (len(message.queries.data) - 32) // (HEADS * 2 * 4)
        first = 7 + sum((len(one.queries.data) - 32) // (HEADS * 2 * 4) for one in sent[:number])
        data = piece(number, kind=PieceKind.PART, num_tokens=tokens, first_position=first)
        answer(asking, 0, number, data)
    assert asking.parts(1)[0].output.shape == wide.shape


def test_no_more_pieces_are_under_way_than_others_take_ahead() -> None:
    sent: list[pb.ExchangeRequest] = []
    asking, losses = make_asking(sent)
    losses.mark_lost(2, "gone")
    long = np.zeros((HEADS, 500_000, 2), np.float32)
    asking.ask(1, long, 7)
    assert len(sent) == PIECES_AHEAD
    parts: list[Any] = []
    thread = threading.Thread(target=lambda: parts.append(asking.parts(1)))
    thread.start()
    number = tokens = 0
    while tokens < 500_000:
        while number == len(sent):
            pass
        assert len(sent) <= number + PIECES_AHEAD
        count = (len(sent[number].queries.data) - 32) // (HEADS * 2 * 4)
        kind = PieceKind.PART
        answer(
            asking, 0, number, piece(number, kind=kind, num_tokens=count, first_position=7 + tokens)
        )
        number, tokens = number + 1, tokens + count
    thread.join()
    assert parts[0][0].output.shape == long.shape
    assert number > PIECES_AHEAD


# -- a contributor -------------------------------------------------------------------------------


async def run_answers(
    *pieces: bytes, layer: int = 1, most: int | None = None
) -> list[pb.ExchangeRequest]:
    state, sent = make_state(), list[pb.ExchangeRequest]()
    rows = AskedRows(state.member(0), [ROTARY] * 3, [None] * 3)

    def spend(count: int, num_bytes: int) -> None:
        assert num_bytes == 32 + HEADS * count * (2 + 1) * 4
        if most is not None and count > most:
            raise PolicyRefusedError("no more")

    with ThreadPoolExecutor(1) as executor:

        async def compute(work: Callable[[], bytes]) -> bytes:
            return await asyncio.get_running_loop().run_in_executor(executor, work)

        answers = Answers(
            AskedNode(rows=rows, compute=compute, spend=spend),
            (0, 3),
            (HEADS, 2),
            sealing=NoSealing(),
            send=sent.append,
        )
        own = np.ones((1, 2, 2), np.float32)
        for at in (1, 2):
            answers.keep(at, KvRows(keys=own, values=own, positions=np.array([1, 2])))
        for number, data in enumerate(pieces):
            answers.add(pb.AskedPiece(layer=layer, number=number, data=data))
        answers.end()
        await asyncio.wait_for(answers.run(), 60)
    return sent


async def test_each_piece_is_answered_in_turn() -> None:
    sent = await run_answers(piece(0), piece(1))
    assert [message.part.number for message in sent] == [0, 1]


@pytest.mark.parametrize(
    "data",
    [
        piece(1),
        piece(0, 2),
        piece(0, kind=PieceKind.PART),
        piece(0, num_heads=3),
        piece(0, head_dim=4),
        piece(0, 0),
        b"",
    ],
)
async def test_queries_that_are_none_end_the_answers(data: bytes) -> None:
    with pytest.raises(FedAttnError):
        await run_answers(data)


async def test_queries_that_do_not_wait_for_answers_are_refused() -> None:
    with pytest.raises(MalformedFrameError, match="without waiting"):
        await run_answers(*map(piece, range(PIECES_AHEAD + 1)))


async def test_owners_are_asked_before_each_answer() -> None:
    with pytest.raises(PolicyRefusedError):
        await run_answers(piece(0), most=1)
