"""What a participant does when rows come, come late, or never come."""

import struct
import threading
import zlib

import numpy as np
import pytest

from fedattn.core.chunks import split_frame
from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import MalformedFrameError, NotEnoughParticipantsError, SessionAbortedError
from fedattn.core.frame_headers import HEADER_SIZE
from fedattn.core.frames import encode_frame
from fedattn.core.plans import PlanSpec, RolePlans
from fedattn.core.row_bounds import RowBounds
from fedattn.core.session import SessionState
from fedattn.core.spans import build_layout
from fedattn.core.types import HeadRows, KvRows, KvShape
from services.participant.arrivals import Arrival
from services.participant.inbox import RowInbox
from services.participant.losses import Losses
from tests.harness.samples import ROTARY

SHAPE = KvShape(num_layers=3, num_kv_heads=1, head_dim=2)
CODEC = codec_by_name("fp32")
NEVER_S = 3600.0
AT_ONCE_S = 1e-6
BOUNDS = RowBounds(
    keys=np.full((3, 1), 1e6, dtype=np.float32),
    values=np.full((3, 1), 1e6, dtype=np.float32),
    queries=np.full((3, 2), 1e6, dtype=np.float32),
)


def make_state() -> SessionState:
    """Contributors a (2 tokens) and b (1 token); the publisher receives at every layer."""
    plans = RolePlans(
        contributors=PlanSpec("none").resolve(3), publisher=PlanSpec("all").resolve(3)
    )
    layout = build_layout(
        num_layers=3,
        prefix_len=1,
        contributors=[("a", 2), ("b", 1)],
        publisher=("publisher", 1),
        plans=plans,
        compression=Compression(codec=CODEC),
    )
    return SessionState(layout, SHAPE)


def make_inbox(
    timeout_s: float = NEVER_S, min_participants: int = 1, required: tuple[str, ...] = ()
) -> RowInbox:
    return RowInbox(
        make_state(),
        2,
        [ROTARY] * SHAPE.num_layers,
        bounds=BOUNDS,
        progress_timeout_s=timeout_s,
        losses=Losses(make_state(), min_participants, required),
        cached={},
    )


def deliver(inbox: RowInbox, sender: int, layer: int, value: float | None = None) -> None:
    """Rows whose scalars are `value`, or tell sender and layer."""
    span = make_state().member(sender).span
    value = 10.0 * sender + layer if value is None else value
    rows = np.full(2 * len(span) * 2, value, dtype="<f4").tobytes()
    frame = bytearray(encode_frame(HeadRows.of(_zeros(sender)), layer, CODEC, span))
    frame[HEADER_SIZE:] = rows
    frame[HEADER_SIZE - 4 : HEADER_SIZE] = struct.pack(
        "<I", zlib.crc32(rows, zlib.crc32(frame[: HEADER_SIZE - 4]))
    )
    for chunk in split_frame(bytes(frame), layer):
        inbox.add(sender, chunk)


def _zeros(sender: int) -> KvRows:
    span = make_state().member(sender).span
    values = np.zeros((1, len(span), 2), dtype=np.float32)
    return KvRows(keys=values, values=values, positions=np.arange(span.start, span.stop))


def take(inbox: RowInbox, layer: int) -> HeadRows:
    """All parts of the only head, one behind the other."""
    parts = inbox.take(layer)
    return HeadRows(
        keys=np.concatenate([part.keys for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        positions=np.concatenate([part.positions for part in parts]),
        counts=(sum(part.num_rows for part in parts),),
    )


def test_rows_come_out_in_token_order_whatever_order_they_came_in() -> None:
    inbox = make_inbox()
    deliver(inbox, 1, 0)
    deliver(inbox, 0, 0)
    rows = take(inbox, 0)
    assert rows.positions.tolist() == [1, 2, 3]
    assert rows.keys[:, 0].tolist() == [0.0, 0.0, 10.0]


def test_later_layer_may_come_first() -> None:
    inbox = make_inbox()
    for layer in (2, 0):
        deliver(inbox, 0, layer)
        deliver(inbox, 1, layer)
    assert take(inbox, 0).keys[0, 0] == 0.0
    assert take(inbox, 2).keys[0, 0] == 2.0


def test_it_tells_what_came_from_whom() -> None:
    inbox = make_inbox()
    deliver(inbox, 1, 0)
    deliver(inbox, 0, 0)
    take(inbox, 0)
    sizes = [HEADER_SIZE + 2 * 4 * 2 * num_tokens for num_tokens in (2, 1)]
    assert inbox.arrivals == (
        Arrival(node_id="a", num_rows=2, num_bytes=sizes[0], wait_s=0),
        Arrival(node_id="b", num_rows=1, num_bytes=sizes[1], wait_s=0),
    )
    inbox.losses.mark_lost(1, "gone")
    deliver(inbox, 0, 1)
    take(inbox, 1)
    assert [arrival.node_id for arrival in inbox.arrivals] == ["a"]


def test_lost_member_is_left_out_once_its_rows_end() -> None:
    inbox = make_inbox()
    deliver(inbox, 0, 0)
    deliver(inbox, 0, 1)
    deliver(inbox, 1, 0)
    inbox.losses.mark_lost(1, "gone")
    assert take(inbox, 0).num_rows == 3
    assert take(inbox, 1).positions.tolist() == [1, 2]


def test_late_member_is_left_out_from_that_layer_on_and_noted() -> None:
    inbox = make_inbox(AT_ONCE_S)
    deliver(inbox, 0, 0)
    assert take(inbox, 0).positions.tolist() == [1, 2]
    deliver(inbox, 1, 0)
    deliver(inbox, 1, 1)
    deliver(inbox, 0, 1)
    assert take(inbox, 1).positions.tolist() == [1, 2]
    assert inbox.losses.late_members() == {1: (0, "no rows for 1e-06 s")}


def test_news_of_another_member_does_not_shorten_the_wait() -> None:
    inbox = make_inbox(NEVER_S)
    rows: list[int] = []
    thread = threading.Thread(target=lambda: rows.append(take(inbox, 0).num_rows))
    thread.start()
    inbox.losses.mark_lost(1, "gone")
    deliver(inbox, 0, 0)
    thread.join()
    assert rows == [2]
    assert inbox.losses.late_members() == {}


def test_unreadable_rows_cost_their_sender_alone() -> None:
    inbox = make_inbox()
    deliver(inbox, 0, 0)
    deliver(inbox, 1, 0, value=float("nan"))
    assert take(inbox, 0).positions.tolist() == [1, 2]
    layer, reason = inbox.losses.late_members()[1]
    assert layer == 0
    assert "frame from b at layer 0" in reason
    assert inbox.losses.left_out().keys() == {1}


def test_member_that_waits_for_a_late_one_is_not_blamed_for_it() -> None:
    """a is silent; b receives from a, so b may be waiting too."""
    plans = RolePlans(contributors=PlanSpec("0").resolve(3), publisher=PlanSpec("1").resolve(3))
    layout = build_layout(
        num_layers=3, prefix_len=1, contributors=[("a", 2), ("b", 1)],
        publisher=("publisher", 1), plans=plans, compression=Compression(codec=CODEC),
    )  # fmt: skip
    state = SessionState(layout, SHAPE)
    inbox = RowInbox(
        state,
        2,
        [ROTARY] * SHAPE.num_layers,
        bounds=BOUNDS,
        progress_timeout_s=0.5,
        losses=Losses(state),
        cached={},
    )
    rows: list[int] = []
    thread = threading.Thread(target=lambda: rows.append(take(inbox, 1).num_rows))
    thread.start()
    while 0 not in inbox.losses.late_members():
        pass
    deliver(inbox, 1, 1)
    thread.join()
    assert rows == [1]
    assert list(inbox.losses.late_members()) == [0]


def test_too_few_participants_end_the_wait_naming_who_is_missing() -> None:
    inbox = make_inbox(min_participants=3)
    deliver(inbox, 0, 0)
    inbox.losses.mark_lost(1, "its connection broke")
    with pytest.raises(
        NotEnoughParticipantsError, match=r"b is lost \(its connection broke\)"
    ) as caught:
        take(inbox, 0)
    assert caught.value.lost == ("b",)


def test_without_a_required_member_there_is_no_answer_and_without_another_there_is() -> None:
    inbox = make_inbox(required=("b",))
    inbox.losses.mark_lost(0, "this node stops")
    deliver(inbox, 1, 0)
    assert len(inbox.take(0)) == 1
    inbox.losses.mark_lost(1, "its connection broke")
    with pytest.raises(NotEnoughParticipantsError) as caught:
        take(inbox, 1)
    assert str(caught.value) == (
        "the query requires b, and b is lost (its connection broke) from layer 1 on; ask again, "
        "or leave it out of `require`"
    )
    assert caught.value.lost == ()  # nothing is gained by asking without it


def test_a_required_member_that_is_lost_after_its_last_rows_is_complete() -> None:
    inbox = make_inbox(required=("b",))
    for layer in range(3):
        deliver(inbox, 0, layer)
        deliver(inbox, 1, layer)
    inbox.losses.mark_lost(1, "its connection broke")
    assert [len(inbox.take(layer)) for layer in range(3)] == [2, 2, 2]


def test_end_of_the_session_wakes_who_waits() -> None:
    inbox = make_inbox()
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            take(inbox, 0)
        except SessionAbortedError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    inbox.losses.end(SessionAbortedError("first reason"))
    inbox.losses.end(SessionAbortedError("second reason"))
    thread.join()
    assert [str(error) for error in caught] == ["first reason"]


@pytest.mark.parametrize("sender", [2, 9])
def test_rows_of_nobody_are_refused(sender: int) -> None:
    inbox = make_inbox()
    donor = next(split_frame(bytes(64), 0))
    with pytest.raises(MalformedFrameError, match=f"member {sender}"):
        inbox.add(sender, donor)


def test_frame_that_was_already_sent_is_refused() -> None:
    inbox = make_inbox()
    deliver(inbox, 0, 0)
    with pytest.raises(MalformedFrameError, match="layer 0 is not awaited"):
        deliver(inbox, 0, 0)


def test_member_whose_rows_are_too_long_is_left_out_and_named() -> None:
    inbox = make_inbox()
    deliver(inbox, 0, layer=0, value=1e6)
    deliver(inbox, 1, layer=0)
    assert take(inbox, 0).positions.tolist() == [3]
    deliver(inbox, 1, layer=1)
    assert take(inbox, 1).positions.tolist() == [3]  # nothing more is awaited of a
    (layer, reason) = inbox.losses.late_members()[0]
    assert layer == 0
    assert reason.startswith("rows of a at block 0: keys of norm 1.414e+06, at most 1.25e+06 are")
    assert inbox.losses.late_members().keys() == inbox.losses.left_out().keys() == {0}


def test_sender_whose_rows_changed_on_the_way_is_left_out_and_named() -> None:
    inbox = make_inbox()
    deliver(inbox, 0, 1)
    span = make_state().member(1).span
    frame = bytearray(encode_frame(HeadRows.of(_zeros(1)), 1, CODEC, span))
    frame[-1] ^= 1
    for chunk in split_frame(bytes(frame), 1):
        inbox.add(1, chunk)
    assert len(inbox.take(1)) == 1
    layer, reason = inbox.losses.late_members()[1]
    assert layer == 1
    assert "checksum expected" in reason
