"""The audit log keeps what it was given, and shows where it was changed."""

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedattn.core.errors import ConfigurationError
from fedattn.runtime.audit import CHAIN_BROKEN, AuditEvent, AuditLog
from fedattn.runtime.audit_chain import NO_HASH, hash_line, log_files, read_chain, read_log

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def open_log(path: Path, max_bytes: int = 1 << 20, max_files: int = 4) -> AuditLog:
    return AuditLog(path, max_bytes, max_files, now=lambda: NOON)


def sent(number: int) -> AuditEvent:
    return AuditEvent(
        event="sent",
        session=f"s{number}",
        publisher="desk",
        subject="anna",
        purpose="maintenance",
        blocks=(7, 9),
        rows=96,
        bytes=18816,
        receivers=("desk", "node-b"),
        outcome="complete",
    )


def write(path: Path, count: int, first: int = 1) -> str:
    log = open_log(path)
    for number in range(first, first + count):
        log.append(sent(number))
    log.close()
    return log.head


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_each_entry_holds_what_happened_and_the_hash_of_the_one_before(path: Path) -> None:
    head = write(path, 2)
    first, second = lines(path)
    assert json.loads(first) == {
        "number": 1,
        "time": "2026-11-30T12:00:00.000+00:00",
        "event": "sent",
        "session": "s1",
        "publisher": "desk",
        "subject": "anna",
        "purpose": "maintenance",
        "share": "",
        "passages": [],
        "blocks": [7, 9],
        "rows": 96,
        "keep_ratio": 0.0,
        "answers": 0,
        "bytes": 18816,
        "receivers": ["desk", "node-b"],
        "outcome": "complete",
        "detail": "",
        "before": NO_HASH,
    }
    assert json.loads(second)["before"] == hash_line(first[:-1])
    assert head == hash_line(second[:-1])


def test_file_is_for_its_owner_alone_also_if_it_was_there(path: Path) -> None:
    path.touch(0o644)
    write(path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_chain_goes_on_after_a_restart(path: Path) -> None:
    write(path, 2)
    head = write(path, 2, first=3)
    chain = read_log(path)
    assert [entry["session"] for entry in chain.entries] == ["s1", "s2", "s3", "s4"]
    assert (chain.broken_line, chain.head, chain.follows) == (0, head, NO_HASH)
    assert chain.hashes == tuple(hash_line(line[:-1]) for line in lines(path))


def test_two_processes_cannot_write_one_log(path: Path) -> None:
    log = open_log(path)
    with pytest.raises(ConfigurationError, match=r"another process writes it.*--state DIR"):
        open_log(path)
    log.close()
    open_log(path).close()


def change(line: bytes) -> bytes:
    return line.replace(b'"rows": 96', b'"rows": 95')


@pytest.mark.parametrize(
    ("tamper", "broken_line"),
    [
        (lambda ls: [change(ls[0]), *ls[1:]], 2),
        (lambda ls: [ls[0], change(ls[1]), *ls[2:]], 3),
        (lambda ls: [ls[0], *ls[2:]], 2),
        (lambda ls: ls[1:], 0),  # as if the files before were not kept
        (lambda ls: [ls[1], ls[0], *ls[2:]], 2),
        (lambda ls: [ls[0], ls[0], *ls[1:]], 2),
        (lambda ls: [*ls[:2], b"{}\n", *ls[2:]], 3),
        (lambda ls: [*ls[:2], b"\n", *ls[2:]], 3),
        (lambda ls: [*ls[:2], b'["before", 3]\n', *ls[2:]], 3),
        (lambda ls: [*ls[:-1], ls[-1][:-1]], 5),
        (lambda ls: [*ls, b"\0" * 100], 6),
        (lambda ls: [*ls, b'{"number": 6'], 6),
        (lambda ls: [*ls, b"x" * 200_000 + b"\n"], 6),
        (lambda ls: [*ls, ls[-1].replace(b'"number": 5', b'"number": 6')], 6),
        (lambda ls: [b"\xff\n", *ls], 1),
        (lambda ls: [ls[1].replace(b'"number": 2', b'"number": 1'), *ls[2:]], 1),
        (lambda ls: ls[:-1], 0),  # the end can be cut off unseen
        (lambda ls: [*ls[:-1], change(ls[-1])], 0),
    ],
)
def test_first_line_that_breaks_the_chain_is_named(
    path: Path, tamper: Callable[[list[bytes]], list[bytes]], broken_line: int
) -> None:
    write(path, 5)
    path.write_bytes(b"".join(tamper(lines(path))))
    chain = read_log(path)
    assert chain.broken_line == broken_line
    assert bool(chain.why) is bool(broken_line)
    assert broken_line == 0 or chain.num_lines == broken_line - 1


def test_damaged_log_is_put_aside_and_a_new_chain_says_so(path: Path) -> None:
    write(path, 3)
    damaged = path.read_bytes()[:-5]
    path.write_bytes(damaged)
    write(path, 1, first=4)
    assert path.with_name("audit.jsonl.damaged-1").read_bytes() == damaged
    chain = read_log(path)
    assert chain.broken_line == 0
    assert [entry["event"] for entry in chain.entries] == [CHAIN_BROKEN, "sent"]
    assert "line 3: it has no end" in chain.entries[0]["detail"]
    assert chain.entries[0]["number"] == 1
    path.write_bytes(b"x")
    write(path, 1)
    assert path.with_name("audit.jsonl.damaged-2").read_bytes() == b"x"


def test_full_file_is_put_aside_and_the_chain_goes_on(path: Path) -> None:
    write(path, 1)
    size = len(lines(path)[0])
    log = open_log(path, max_bytes=3 * size, max_files=2)
    for number in range(2, 9):
        log.append(sent(number))
    log.close()
    files = log_files(path)
    assert [file.name for file in files] == [
        "audit.jsonl.000001",
        "audit.jsonl.000002",
        "audit.jsonl",
    ]
    chain = read_log(path)
    assert [entry["number"] for entry in chain.entries] == list(range(1, 9))
    assert (chain.broken_line, chain.head) == (0, log.head)
    log = open_log(path, max_bytes=3 * size, max_files=2)
    for number in range(9, 14):
        log.append(sent(number))
    log.close()
    assert [file.name for file in log_files(path)] == [
        "audit.jsonl.000003",
        "audit.jsonl.000004",
        "audit.jsonl",
    ]
    chain = read_log(path)
    assert chain.broken_line == 0
    assert chain.entries[0]["number"] == 7
    assert chain.follows != NO_HASH


def test_restart_between_two_files_continues_with_the_last_full_one(path: Path) -> None:
    head = write(path, 2)
    path.rename(path.with_name("audit.jsonl.000001"))
    log = open_log(path)
    assert log.head == head
    log.append(sent(3))
    log.close()
    assert read_log(path).num_lines == 3


def test_break_between_two_files_is_found(path: Path) -> None:
    write(path, 2)
    full = path.with_name("audit.jsonl.000001")
    path.rename(full)
    write(path, 2, first=3)
    full.write_bytes(lines(full)[0])
    chain = read_log(path)
    assert (chain.broken_line, chain.path) == (1, path)
    assert read_chain(path).broken_line == 0


def test_damaged_full_file_takes_its_whole_chain_aside(path: Path) -> None:
    write(path, 2)
    path.rename(path.with_name("audit.jsonl.000001"))
    path.with_name("audit.jsonl.000002").write_bytes(b"x\n")
    write(path, 1)
    assert [file.name for file in log_files(path)] == ["audit.jsonl"]
    assert read_log(path).entries[0]["event"] == CHAIN_BROKEN
    assert len(list(path.parent.glob("*.damaged-*"))) == 3


def test_failed_write_leaves_no_piece_and_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = open_log(path)
    log.append(sent(1))
    write_bytes = os.write
    with monkeypatch.context() as patched:
        patched.setattr("os.write", lambda fd, data: write_bytes(fd, data[:10]))
        with pytest.raises(ConfigurationError, match="no space left on device"):
            log.append(sent(2))
    log.append(sent(2))
    log.close()
    assert read_log(path).num_lines == 2


def test_log_goes_on_after_a_new_file_could_not_be_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, 1)
    log = open_log(path, max_bytes=len(lines(path)[0]))

    def fail(*_args: object, **_kwargs: object) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr("os.open", fail)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="too many open files"):
                log.append(sent(2))
    log.append(sent(2))
    log.append(sent(3))
    log.close()
    chain = read_log(path)
    assert (chain.broken_line, chain.head) == (0, log.head)
    assert [entry["session"] for entry in chain.entries] == ["s1", "s2", "s3"]


def test_closed_log_is_not_opened_again(path: Path) -> None:
    log = open_log(path)
    log.close()
    with pytest.raises(ConfigurationError, match="it is closed"):
        log.append(sent(1))


def test_entry_of_hostile_length_is_refused_or_cut(path: Path) -> None:
    log = open_log(path)
    with pytest.raises(ConfigurationError, match="at most 65536"):
        log.append(AuditEvent(event="asked", subject="\U0001f600" * 10_000))
    log.append(AuditEvent(event="asked", detail="x" * 5000, subject="two\nlines\u2028"))
    log.close()
    (entry,) = read_log(path).entries
    assert len(entry["detail"]) == 1000
    assert len(lines(path)) == 1


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"audit log .*cannot be written"):
        open_log(tmp_path / "none" / "audit.jsonl")


def test_line_of_brackets_breaks_the_chain_like_any_other(path: Path) -> None:
    path.write_bytes(b"[" * 50_000 + b"\n")
    assert read_log(path).why == "it is no entry of an audit log"
