"""Sealed frames: what a receiver takes, and what nobody else can do with them."""

from dataclasses import replace

import pytest

from fedattn.core.errors import CorruptFrameError, MalformedFrameError
from fedattn.core.frame_headers import HEADER_SIZE, max_frame_size
from fedattn.core.frames import ReceivedFrame, check_frame, decode_body, open_frame, seal_frame
from fedattn.core.request import Kem
from fedattn.core.seals import SEAL_SIZE
from fedattn.wire.requests import KEY_SIZES
from fedattn.wire.sealing import ContentKey, KeyPair, seal_key
from tests.harness.samples import same_rows, sample_frame, sample_rows, sample_rules, sealed

RULES = replace(sample_rules(), is_sealed=True)
INFO = b"one session"


def taken(frame: bytes, key: ContentKey) -> ReceivedFrame:
    return open_frame(check_frame(frame, RULES), key.open)


def test_rows_come_out_as_they_were_sealed() -> None:
    key = ContentKey()
    frame = seal_frame(sample_frame(), key.seal)
    assert len(frame) == len(sample_frame()) + SEAL_SIZE == max_frame_size(RULES)
    opened = taken(frame, ContentKey(key.secret))
    assert same_rows(decode_body(opened, sample_rules()), sample_rows())


def test_sealed_frame_shows_nothing_of_its_body() -> None:
    frame = seal_frame(sample_frame(), ContentKey().seal)
    body = sample_frame()[HEADER_SIZE:]
    assert body[:4] not in frame
    assert frame[HEADER_SIZE:] != seal_frame(sample_frame(), ContentKey().seal)[HEADER_SIZE:]


@pytest.mark.parametrize("place", range(HEADER_SIZE, HEADER_SIZE + 16 + SEAL_SIZE))
def test_any_changed_byte_is_found_though_the_checksum_is_right(place: int) -> None:
    key = ContentKey()
    frame = bytearray(seal_frame(sample_frame(), key.seal))
    frame[place] ^= 1
    with pytest.raises(CorruptFrameError, match="not what its sender sealed"):
        taken(sealed(frame), key)


def test_frame_of_another_layer_is_found_though_it_bears_this_ones_number() -> None:
    key = ContentKey()
    frame = bytearray(seal_frame(sample_frame(), key.seal))
    frame[8] ^= 1  # the layer
    with pytest.raises(CorruptFrameError, match="not what its sender sealed"):
        taken(sealed(frame), key)


def test_frame_of_another_key_is_found() -> None:
    frame = seal_frame(sample_frame(), ContentKey().seal)
    with pytest.raises(CorruptFrameError, match="not what its sender sealed"):
        taken(frame, ContentKey())


def test_clear_frame_where_a_sealed_one_is_due_is_refused() -> None:
    with pytest.raises(MalformedFrameError, match="sealed expected True, got False"):
        check_frame(sample_frame(), RULES)


def test_no_layer_is_sealed_twice_with_a_key() -> None:
    key = ContentKey()
    seal_frame(sample_frame(), key.seal)
    with pytest.raises(ValueError, match="has been sealed with this key already"):
        seal_frame(sample_frame(), key.seal)


def test_layers_have_nonces_of_their_own() -> None:
    key, header, body = ContentKey(), b"header", bytes(64)
    first, second = (key.seal(layer, header, body) for layer in (0, 1))
    assert first[:64] != second[:64]  # equal nonces would give equal streams


def test_key_opens_for_its_receiver_and_what_it_was_sealed_for_alone() -> None:
    key, receiver, other = ContentKey(), KeyPair(), KeyPair()
    message = seal_key(key, receiver.public, INFO)
    assert receiver.open(message, INFO).secret == key.secret
    for pair, info in ((receiver, b"another session"), (other, INFO)):
        with pytest.raises(CorruptFrameError, match="not sealed for this member"):
            pair.open(message, info)
    with pytest.raises(CorruptFrameError, match="not sealed for this member"):
        receiver.open(message[:-1], INFO)


def test_public_key_has_the_size_that_is_checked() -> None:
    public = KeyPair().public
    assert public.kem is Kem.MLKEM768_X25519
    assert len(public.data) == KEY_SIZES[public.kem]


def test_bytes_that_are_no_key_are_refused() -> None:
    public = replace(KeyPair().public, data=b"\xff" * KEY_SIZES[Kem.MLKEM768_X25519])
    with pytest.raises(ValueError, match="key"):
        seal_key(ContentKey(), public, INFO)
