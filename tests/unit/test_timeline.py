"""Timelines: laps and slices, their way over the wire, and as a Chrome trace."""

from collections.abc import Callable

import pytest

from fedattn.cli.chrome_trace import chrome_trace
from fedattn.core.errors import InvalidRequestError
from fedattn.core.timeline import Activity, Slice, Timeline, max_slices
from fedattn.rest.reports import TimelineSlice
from fedattn.wire.timeline import timeline_from_wire, timeline_to_wire
from fedattn.wire.v1 import session_pb2
from tests.harness.answers import sample_answer, sample_report


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def slice_of(activity: Activity, layer: int, begin_s: float, duration_s: float) -> Slice:
    return Slice(activity=activity, layer=layer, begin_s=begin_s, duration_s=duration_s)


def test_laps_follow_each_other_without_gaps() -> None:
    clock = Clock()
    timeline = Timeline(is_on=True, clock=clock)
    clock.now += 2.0
    timeline.lap(Activity.COMPUTE, 1)
    clock.now += 0.5
    timeline.lap(Activity.WAIT, 1)
    assert timeline.slices() == [
        slice_of(Activity.COMPUTE, 1, 0.0, 2.0),
        slice_of(Activity.WAIT, 1, 2.0, 0.5),
    ]


def test_slices_of_other_threads_are_sorted_in_and_empty_ones_left_out() -> None:
    clock = Clock()
    timeline = Timeline(is_on=True, clock=clock)
    begin_s = timeline.now()
    clock.now += 1.0
    timeline.lap(Activity.WAIT, 3)
    timeline.lap(Activity.DECODE, 3)
    timeline.add(Activity.ENCODE, 2, begin_s)
    found = [(piece.activity, piece.begin_s) for piece in timeline.slices()]
    assert found == [(Activity.WAIT, 0.0), (Activity.ENCODE, 0.0)]


def test_timeline_that_is_off_records_nothing() -> None:
    clock = Clock()
    timeline = Timeline(is_on=False, clock=clock)
    clock.now += 1.0
    timeline.lap(Activity.COMPUTE, 0)
    assert timeline.slices() == []


def test_every_activity_comes_back_from_the_wire() -> None:
    slices = [slice_of(activity, 2, 0.25, 0.5) for activity in Activity]
    assert timeline_from_wire(timeline_to_wire(slices), num_layers=3) == slices


def too_many() -> list[session_pb2.Slice]:
    piece = session_pb2.Slice(activity=session_pb2.ACTIVITY_SEND)
    return [piece] * (max_slices(3) + 1)


def one(**fields: float) -> Callable[[], list[session_pb2.Slice]]:
    valid = {"activity": session_pb2.ACTIVITY_SEND, "layer": 1, "begin_s": 0.0, "duration_s": 0.1}
    return lambda: [session_pb2.Slice(**(valid | fields))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (too_many, "slices of a timeline"),
        (one(activity=0), "activity"),
        (one(activity=99), "activity"),
        (one(layer=3), "layer"),
        (one(begin_s=-1.0), "begin_s"),
        (one(begin_s=float("nan")), "begin_s"),
        (one(duration_s=float("inf")), "duration_s"),
    ],
)
def test_hostile_timeline_is_refused(
    make: Callable[[], list[session_pb2.Slice]], words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        timeline_from_wire(make(), num_layers=3)


def test_trace_has_a_process_a_node_and_microseconds() -> None:
    piece = TimelineSlice(activity=Activity.ENCODE, layer=7, begin_s=0.5, duration_s=0.25)
    node = sample_report("a", timeline=[piece])
    events = chrome_trace(sample_answer(participants=[node]))["traceEvents"]
    names = [event["args"]["name"] for event in events if event["ph"] == "M"]
    work = [event for event in events if event["ph"] == "X"]
    assert names == ["a (contributor)", "encode", "model", "send"]
    assert [(e["name"], e["ts"], e["dur"]) for e in work] == [("encode 7", 5e5, 2.5e5)]
