"""Logs: whole entries, their times, and reading on where a log has grown."""

import gzip
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedattn.texts.kinds import Kind, kind_of
from fedattn.texts.pieces import SkippedError, cut_file, is_resumable
from fedattn.texts.stamps import find_stamp
from tests.unit.texts.conftest import Cut

NOW_S = datetime(2026, 11, 28, 16, tzinfo=UTC).timestamp()
ENTRY = (
    "2026-11-28T15:48:18Z ERROR pump 3 failed\n"
    "Traceback (most recent call last):\n"
    '  File "pump.py", line 3\n'
    "ValueError: no pressure\n"
)
LOG = "2026-11-28T15:48:17Z INFO start\n" + ENTRY + "2026-11-28T15:49:00Z INFO go on\n"


def test_an_entry_keeps_its_stack_trace(cut: Cut) -> None:
    pieces = cut("a.log", LOG, max_chars=150)
    assert [piece.text + "\n" for piece in pieces] == [
        LOG.splitlines(keepends=True)[0],
        ENTRY,
        LOG.splitlines(keepends=True)[-1],
    ]
    assert [piece.place for piece in pieces] == ["line 1", "lines 2-5", "line 6"]


def test_a_piece_has_the_time_of_its_last_entry(cut: Cut) -> None:
    (piece,) = cut("a.log", LOG)
    assert piece.time_s == datetime(2026, 11, 28, 15, 49, tzinfo=UTC).timestamp()


def test_each_part_of_a_long_entry_begins_with_its_time(cut: Cut) -> None:
    trace = "".join(f"  at valve.close(valve.py:{line})\n" for line in range(40))
    pieces = cut("a.log", LOG + "2026-11-28T15:50:00Z FATAL\n" + trace, max_chars=200)
    parts = pieces[1:]
    assert len(parts) > 5
    assert all(part.text.startswith("2026-11-28T15:50:00Z") for part in parts)
    assert len({part.start for part in parts}) == 1
    assert sum(part.text.count("valve.close(") for part in parts) == 40


@pytest.mark.parametrize(
    ("line", "stamp", "moment"),
    [
        ("2026-11-28T15:48:17.250+01:00 x", "2026-11-28T15:48:17.250+01:00", (14, 48, 17, 250000)),
        ("2026-11-28 15:48:17,5Z INFO x", "2026-11-28 15:48:17,5Z", (15, 48, 17, 500000)),
        ("[INFO] 2026/11/28 15:48:17 UTC: x", "[INFO] 2026/11/28 15:48:17 UTC", (15, 48, 17, 0)),
        ('::1 - - [28/Nov/2026:15:48:17 +0000] "GET"', None, (15, 48, 17, 0)),
        ("1795880897.5 x", "1795880897.5", (15, 48, 17, 500000)),
        ("1795880897500 x", "1795880897500", (15, 48, 17, 500000)),
    ],
)
def test_stamps_that_say_their_zone(line: str, stamp: str | None, moment: tuple[int, ...]) -> None:
    found = find_stamp(line, NOW_S)
    assert found is not None
    assert stamp is None or found.text == stamp
    hour, minute, second, microsecond = moment
    expected = datetime(2026, 11, 28, hour, minute, second, microsecond, tzinfo=UTC)
    assert found.time_s == pytest.approx(expected.timestamp())


@pytest.mark.parametrize(
    ("line", "year"),
    [
        ("Nov 28 15:48:17 host sshd[1]: x", 2026),
        ("<34>Nov 28 15:48:17 host x", 2026),
        ("Sat Nov 28 15:48:17 2026 x", 2026),
        ("28.11.2026 15:48:17 x", 2026),
        ("2026-11-28 15:48:17 x", 2026),
        ("Dec 24 15:48:17 host x", 2025),  # not in the future
    ],
)
def test_stamps_without_a_zone_are_in_local_time(line: str, year: int) -> None:
    found = find_stamp(line, NOW_S)
    month, day = (12, 24) if "Dec" in line else (11, 28)
    assert found is not None
    assert found.time_s == datetime(year, month, day, 15, 48, 17).astimezone().timestamp()


@pytest.mark.parametrize(
    "line", ["11/28/2026 15:48 x", "15:48:17.1 x", "[  12.345678] usb 1", "Feb 29 15:48:17 x"]
)
def test_stamps_whose_day_is_not_certain_have_no_time(line: str) -> None:
    found = find_stamp(line, NOW_S)
    assert found is not None
    assert found.time_s is None


@pytest.mark.parametrize(
    "line", ["", "  2026-11-28 15:48 x", "2026-13-45 15:48:17 x", "at 7", "12"]
)
def test_other_lines_begin_no_entry(line: str) -> None:
    assert find_stamp(line, NOW_S) is None


def test_the_year_of_a_syslog_is_that_of_its_last_change(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text("Nov 28 15:48:17 host x\n")
    changed_s = datetime(2020, 12, 1).astimezone().timestamp()
    os.utime(path, (changed_s, changed_s))
    (piece,) = cut_file(path)
    assert piece.time_s == datetime(2020, 11, 28, 15, 48, 17).astimezone().timestamp()


def test_a_text_whose_lines_begin_with_times_is_a_log(cut: Cut) -> None:
    text = "".join(f"28.11.2026 15:4{minute} Pumpe läuft\n" for minute in range(4))
    (piece,) = cut("a.txt", text)
    assert piece.time_s is not None


def test_without_times_a_line_that_is_not_indented_begins_an_entry(cut: Cut) -> None:
    (piece, other) = cut("a.log", f"{'x' * 90}\n  more\nnext {'y' * 80}\n", max_chars=100)
    assert piece.text.endswith("\n  more")
    assert other.place == "line 3"


def test_a_log_of_json_lines_is_read_as_such(cut: Cut) -> None:
    (piece,) = cut("a.log", '{"time":"2026-11-28T15:48:17Z","pump":{"bar":2}}\n')
    assert piece.text == "time: 2026-11-28T15:48:17Z; pump.bar: 2"
    assert piece.time_s == datetime(2026, 11, 28, 15, 48, 17, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "name",
    ["a.log.1", "a.log.2026-11-28", "a.log-20261128", "A.LOG.3", "a.log.1.gz", "a-20261128.log.gz"],
)
def test_names_of_rotated_logs_are_known(name: str) -> None:
    assert kind_of(name) is Kind.LOG
    assert is_resumable(Path(name)) is not name.endswith(".gz")


@pytest.mark.parametrize("name", ["a.log.bak", "catalog", "my.logistics", "a.txt.gz", "a.log.zip"])
def test_other_names_are_none_of_a_log(name: str) -> None:
    assert kind_of(name) is None


def test_a_packed_log_is_read_as_what_it_holds(cut: Cut) -> None:
    (packed,) = cut("a.log.1.gz", gzip.compress(LOG.encode()))
    (plain,) = cut("a.log", LOG)
    assert (packed.text, packed.time_s) == (plain.text, plain.time_s)
    assert (packed.start, packed.stop) == (0, 0)


def test_of_a_packed_log_that_is_cut_the_begin_is_read(cut: Cut) -> None:
    lines = "".join(f"2026-11-28T15:48:17Z {os.urandom(30).hex()}\n" for _ in range(2000))
    data = gzip.compress(lines.encode())
    pieces = cut("a.log.gz", data[: len(data) // 2])
    text = "\n".join(piece.text for piece in pieces)
    assert len(text) > 20_000
    assert lines.startswith(text)
    with pytest.raises(SkippedError):
        cut("b.log.gz", b"no gzip")


@pytest.mark.parametrize("num_bytes", range(len(LOG) - 110, len(LOG), 7))
def test_an_entry_that_is_still_written_is_read_again(tmp_path: Path, num_bytes: int) -> None:
    path = tmp_path / "a.log"
    path.write_text(LOG[:num_bytes])
    before = list(cut_file(path, max_chars=100))
    path.write_text(LOG)
    start = before[-1].start
    after = list(cut_file(path, max_chars=100, start=start))
    texts = [piece.text for piece in before if piece.start < start] + [x.text for x in after]
    assert "\n".join(texts).replace("\n2026-11-28T15:48:18Z\n", "\n") == LOG.strip()


LINES = st.lists(
    st.tuples(st.booleans(), st.text(st.sampled_from("ab 港.\t"), max_size=150)), min_size=3
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES, st.data())
def test_a_grown_log_gives_the_pieces_of_the_whole(
    tmp_path: Path, lines: list[tuple[bool, str]], data: st.DataObject
) -> None:
    written = [
        f"2026-11-28T15:48:{index % 60:02d}Z {text}\n" if is_new else f"  {text}\n"
        for index, (is_new, text) in enumerate([(True, "first"), *lines])
    ]
    path = tmp_path / "a.log"
    path.write_text("".join(written[: data.draw(st.integers(1, len(written)))]))
    before = list(cut_file(path, max_chars=100))
    path.write_text("".join(written))
    start = before[-1].start
    kept = [piece for piece in before if piece.start < start]
    whole = list(cut_file(path, max_chars=100))
    assert kept + list(cut_file(path, start=start, max_chars=100)) == whole
    assert all(len(piece.text) <= 100 for piece in whole)
    joined = "".join("".join(piece.text.split()) for piece in whole)
    rest = iter(joined)  # parts of long entries repeat their time, so it may have more
    assert all(char in rest for char in "".join("".join(written).split()))
