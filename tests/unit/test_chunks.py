"""Chunks: frames cut for the stream arrive whole, in order, once, and nothing else passes."""

import gc
from dataclasses import replace
from itertools import pairwise
from types import FunctionType, ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedattn.core.chunks import MAX_CHUNK_SIZE, Chunk, FrameAssembler, FrameValidator, split_frame
from fedattn.core.errors import FrameError, MalformedFrameError
from fedattn.core.frame_headers import HEADER_SIZE, FrameSpec
from fedattn.core.frames import ReceivedFrame, encode_frame
from fedattn.core.spans import Span
from fedattn.core.types import KvShape
from tests.harness.samples import (
    LAYER,
    SENDER,
    WIDE_SPAN,
    kept_frame,
    sample_frame,
    sample_rows,
    sample_rules,
)

BIG_SHAPE = KvShape(num_layers=4, num_kv_heads=4, head_dim=64)
BIG_SPAN = Span(7, 7 + 2100)  # 2.05 MiB of bf16: three chunks


def rules_of(*layers: int) -> dict[int, FrameSpec]:
    return dict.fromkeys(layers, sample_rules())


def big_rules(*layers: int) -> dict[int, FrameSpec]:
    return dict.fromkeys(layers or (LAYER,), sample_rules(shape=BIG_SHAPE, span=BIG_SPAN))


def big_frame(layer: int = LAYER) -> bytes:
    rows = sample_rows(shape=BIG_SHAPE, span=BIG_SPAN)
    return encode_frame(rows, layer, sample_rules().codec, BIG_SPAN)


def big_chunks(layer: int = LAYER) -> list[Chunk]:
    return list(split_frame(big_frame(layer), layer))


def guard_of(*layers: int) -> FrameValidator:
    return FrameValidator(big_rules(*layers))


def small_chunk(*, layer: int = LAYER) -> Chunk:
    (chunk,) = split_frame(sample_frame(layer=layer), layer)
    return chunk


def held_bytes(root: object) -> int:
    """Bytes of all buffers reachable from an object."""
    seen: dict[int, object] = {}
    pending: list[object] = [root]
    while pending:
        thing = pending.pop()
        if id(thing) not in seen and not isinstance(thing, type | ModuleType | FunctionType):
            seen[id(thing)] = thing
            pending.extend(gc.get_referents(thing))
    buffers = [
        thing for thing in seen.values() if isinstance(thing, bytes | bytearray | memoryview)
    ]
    return sum(len(buffer) for buffer in buffers)


def body_of(received: ReceivedFrame | None) -> bytes:
    assert received is not None
    assert received.header.body_size == len(received.body)
    return bytes(received.body)


def test_large_frame_is_cut_into_chunks_in_order_that_fill_it() -> None:
    frame, chunks = big_frame(), big_chunks()
    assert b"".join(chunk.data for chunk in chunks) == frame
    assert [chunk.offset for chunk in chunks] == [0, MAX_CHUNK_SIZE, 2 * MAX_CHUNK_SIZE]
    assert {(chunk.layer, chunk.frame_size) for chunk in chunks} == {(LAYER, len(frame))}


def test_large_frames_of_two_layers_are_put_together_again() -> None:
    assembler = FrameAssembler(big_rules(1, 3))
    for layer, still_awaited in ((3, {1}), (1, set[int]())):
        first, second, third = big_chunks(layer)
        assert assembler.add(first) is None
        assert assembler.add(second) is None
        assert body_of(assembler.add(third)) == big_frame(layer)[HEADER_SIZE:]
        assert assembler.awaited_layers == still_awaited


@given(st.sets(st.integers(HEADER_SIZE, HEADER_SIZE + 15), max_size=8))
def test_any_cut_behind_the_header_is_put_together_again(cuts: set[int]) -> None:
    frame = sample_frame()
    assembler = FrameAssembler(rules_of(LAYER))
    edges = [0, *sorted(cuts), len(frame)]
    results = [
        assembler.add(Chunk(layer=LAYER, offset=a, frame_size=len(frame), data=frame[a:b]))
        for a, b in pairwise(edges)
    ]
    assert body_of(results[-1]) == frame[HEADER_SIZE:]
    assert set(results[:-1]) <= {None}


@pytest.mark.parametrize("order", [(1,), (2,), (0, 0), (0, 2), (0, 1, 1), (0, 1, 0), (0, 1, 2, 2)])
def test_chunks_out_of_order_or_twice_are_refused(order: tuple[int, ...]) -> None:
    chunks, guard = big_chunks(), guard_of()
    *accepted, wrong = (chunks[place] for place in order)
    for chunk in accepted:
        guard.accept(chunk)
    with pytest.raises(MalformedFrameError, match=f"chunk from {SENDER} at layer {LAYER}"):
        guard.accept(wrong)


def test_frames_of_two_layers_may_not_be_interleaved() -> None:
    guard = guard_of(1, 2)
    guard.accept(big_chunks(1)[0])
    for intruder in big_chunks(2)[:2]:
        with pytest.raises(MalformedFrameError, match="frames one by one"):
            guard.accept(intruder)


@pytest.mark.parametrize("size", [0, MAX_CHUNK_SIZE + 1])
def test_empty_and_overlong_chunks_are_refused(size: int) -> None:
    chunk = replace(big_chunks()[0], data=big_frame()[:size])
    with pytest.raises(
        MalformedFrameError, match=rf"{SENDER}: expected 1 to \d+ bytes, got {size}"
    ):
        guard_of().accept(chunk)


def test_layer_sent_twice_is_refused() -> None:
    guard = FrameValidator(rules_of(LAYER))
    guard.accept(small_chunk())
    assert guard.awaited_layers == frozenset()
    with pytest.raises(MalformedFrameError, match=f"{SENDER}: layer {LAYER} is not awaited"):
        guard.accept(small_chunk())


def test_layer_nobody_awaits_is_refused() -> None:
    guard = FrameValidator(rules_of(LAYER))
    with pytest.raises(MalformedFrameError, match="layer 1 is not awaited"):
        guard.accept(small_chunk(layer=1))
    assert guard.awaited_layers == {LAYER}


def test_frames_of_each_layer_keep_to_rules_of_their_own() -> None:
    """Heads may have other numbers of rows at every layer."""
    wide = sample_rules(span=WIDE_SPAN, counts=(3,))
    guard = FrameValidator({1: sample_rules(), LAYER: wide})
    guard.accept(small_chunk(layer=1))
    with pytest.raises(MalformedFrameError, match="at layer 2: rows expected 3, got 2"):
        guard.accept(small_chunk(layer=LAYER))
    assert guard.awaited_layers == {LAYER}
    (chunk,) = split_frame(kept_frame(), LAYER)
    guard.accept(chunk)
    assert guard.awaited_layers == frozenset()


def test_who_sends_no_rows_is_refused_whatever_it_sends() -> None:
    with pytest.raises(MalformedFrameError, match="that sends no rows: layer 2 is not awaited"):
        FrameValidator({}).accept(small_chunk())


@pytest.mark.parametrize(
    ("lie", "complaint"),
    [
        ({"layer": 1}, "says layer 1 and 52 bytes, its frame says layer 2 and 52 bytes"),
        ({"frame_size": 1 << 30}, "and 1073741824 bytes, its frame says layer 2 and 52 bytes"),
        ({"frame_size": 51}, "and 51 bytes, its frame says layer 2 and 52 bytes"),
        ({"data": sample_frame() + b"\0"}, "expected 52 bytes, got more"),
        ({"data": sample_frame()[: HEADER_SIZE - 1]}, "expected at least 36 bytes, got 35"),
        ({"offset": 1}, "expected offset 0, got 1"),
        ({"data": bytes(52)}, "expected magic"),
        ({"data": sample_frame("fp32")}, "codec expected bf16, got fp32"),
    ],
)
def test_chunk_that_contradicts_its_frame_is_refused(lie: dict[str, Any], complaint: str) -> None:
    assembler = FrameAssembler(rules_of(1, LAYER))
    with pytest.raises(MalformedFrameError, match=complaint) as caught:
        assembler.add(replace(small_chunk(), **lie))
    assert SENDER in str(caught.value)
    assert assembler.awaited_layers == {1, LAYER}


@pytest.mark.parametrize("change", [-1, 1])
def test_frame_size_may_not_change_within_a_frame(change: int) -> None:
    first, second, _ = big_chunks()
    guard = guard_of()
    guard.accept(first)
    with pytest.raises(MalformedFrameError, match=SENDER):
        guard.accept(replace(second, frame_size=second.frame_size + change))


def test_last_chunk_may_not_run_over_the_frame() -> None:
    *head, last = big_chunks()
    guard = guard_of()
    for chunk in head:
        guard.accept(chunk)
    with pytest.raises(MalformedFrameError, match="got more"):
        guard.accept(replace(last, data=bytes(last.data) + b"\0"))
    assert guard.awaited_layers == {LAYER}


def test_frame_of_one_chunk_is_not_copied() -> None:
    chunk = small_chunk()
    frame = FrameAssembler(rules_of(LAYER)).add(chunk)
    assert frame is not None
    assert isinstance(frame.body, memoryview)
    assert isinstance(chunk.data, memoryview)
    assert frame.body.obj is chunk.data.obj


def test_guard_holds_no_payload_and_the_assembler_one_frame() -> None:
    guard, assembler = guard_of(), FrameAssembler(big_rules())
    for chunk in big_chunks()[:2]:
        guard.accept(chunk)
        assembler.add(chunk)
    assert held_bytes(guard) < 1024
    assert 2 * MAX_CHUNK_SIZE - HEADER_SIZE <= held_bytes(assembler) < len(big_frame()) + 1024


@given(layer=st.integers(0, 5), offset=st.integers(0, 50), size=st.integers(0, 60),
       data=st.binary(max_size=60))  # fmt: skip
def test_random_chunks_are_refused_as_frame_errors(
    layer: int, offset: int, size: int, data: bytes
) -> None:
    assembler = FrameAssembler(rules_of(LAYER))
    with pytest.raises(FrameError):
        assembler.add(Chunk(layer=layer, offset=offset, frame_size=size, data=data))
