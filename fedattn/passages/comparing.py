"""Files as they are against files as they were read: what has to be done about each."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Protocol

from fedattn.core.contexts import SkipReason
from fedattn.passages.looking import Look, digest
from fedattn.passages.records import FileRecord, FileState
from fedattn.texts.kinds import kind_of
from fedattn.texts.listing import FoundFile


class Change(Enum):
    """What became of a file."""

    NONE = auto()
    SEEN = auto()  # nothing to read, but something to write down
    GROWN = auto()  # go on where its last piece begins
    ANOTHER = auto()  # read all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A file, its record, brought up to date, and what to do."""

    found: FoundFile
    record: FileRecord
    change: Change
    is_renamed: bool = False


class Resumable(Protocol):
    """Tells whether a file can be read on from the middle."""

    def __call__(self, found: FoundFile) -> bool: ...


def match_records(
    found: Iterable[tuple[FoundFile, Look]], records: Iterable[FileRecord]
) -> tuple[dict[str, FileRecord], list[FileRecord]]:
    """The record of each file that has one, by the file's name now, and records of no file.

    A file keeps its record under another name, if it begins as it did: so logs are rotated. Else
    it takes over the record of its name.
    """
    files, records = list(found), list(records)
    by_identity = {record.look.identity: record for record in records}
    by_name = {record.name: record for record in records}
    matched: dict[str, FileRecord] = {}
    for file, look in files:
        record = by_identity.get(look.identity)
        if record is not None and (record.name == file.name or _begins_alike(file, look, record)):
            matched[file.name] = record
    taken = {id(record) for record in matched.values()}
    for file, _ in files:
        record = by_name.get(file.name)
        if file.name not in matched and record is not None and id(record) not in taken:
            matched[file.name] = record
            taken.add(id(record))
    return matched, [record for record in records if id(record) not in taken]


def compare(
    found: FoundFile, look: Look, record: FileRecord | None, now_ns: int, is_resumable: Resumable
) -> Comparison:
    """What to do about one file, and its record as it has to become.

    Raises:
        OSError: the file cannot be read.
    """
    is_racy = look.is_racy(now_ns)
    if record is not None and _is_untouched(found, look, record):
        return _unchanged(found, record)
    digests = digest(found.path, look.size)
    fresh = FileRecord(name=found.name, look=look, digests=digests, is_racy=is_racy)
    if record is None:
        return Comparison(found=found, record=fresh, change=Change.ANOTHER)
    kept = replace(record, name=found.name, look=look, digests=digests, is_racy=is_racy)
    is_renamed = record.name != found.name
    if record.state is FileState.STALE or not _is_cut_alike(found, record):
        change = Change.ANOTHER
    elif record.look.size == look.size and record.digests == digests:
        change = Change.SEEN if record.state is FileState.WHOLE else Change.GROWN
    elif look.size > record.look.size and _is_continued(found, look, record):
        change = Change.GROWN
    else:
        change = Change.ANOTHER
    if change is Change.GROWN and not (record.reason is None and is_resumable(found)):
        change = Change.ANOTHER
    return Comparison(found=found, record=kept, change=change, is_renamed=is_renamed)


def _unchanged(found: FoundFile, record: FileRecord) -> Comparison:
    is_renamed = record.name != found.name
    return Comparison(
        found=found,
        record=replace(record, name=found.name),
        change=Change.SEEN if is_renamed else Change.NONE,
        is_renamed=is_renamed,
    )


def _is_untouched(found: FoundFile, look: Look, record: FileRecord) -> bool:
    if not _is_cut_alike(found, record):
        return False
    is_settled = record.state is FileState.WHOLE and record.reason is not SkipReason.UNREADABLE
    return is_settled and not record.is_racy and look == record.look


def _is_cut_alike(found: FoundFile, record: FileRecord) -> bool:
    """Whether a renamed file is still of its kind."""
    return kind_of(found.name) == kind_of(record.name)


def _begins_alike(file: FoundFile, look: Look, record: FileRecord) -> bool:
    return look.size >= record.look.size and _digests_match(file, record, head_only=True)


def _is_continued(found: FoundFile, look: Look, record: FileRecord) -> bool:
    same_file = look.identity == record.look.identity
    return same_file and _digests_match(found, record, head_only=False)


def _digests_match(file: FoundFile, record: FileRecord, *, head_only: bool) -> bool:
    """Whether the bytes that were read are still there, by their edges."""
    try:
        now = digest(file.path, record.look.size, edges_only=True)
    except OSError:
        return False
    return now.head == record.digests.head and (head_only or now.tail == record.digests.tail)
