"""What a started node does, as its own log tells it: on the machine of its owner."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from fedattn.cli.log_lines import LogTail
from fedattn.core.errors import ConfigurationError
from fedattn.core.printable import one_line
from fedattn.passages.cannot_read import CannotReadError
from fedattn.passages.read_only import ReadOnlyDatabase
from fedattn.passages.reader import PassageReader

_READING = "reading texts"
_MAX_NAMES = 4
"""Skipped files that are named in one line; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """A line for people.

    Attributes:
        text: the line.
        is_warning: whether the owner should look at something.
    """

    text: str
    is_warning: bool = False


@dataclass(slots=True, kw_only=True)
class NodeWatch:
    """Follows one node by its log, written as JSON.

    Attributes:
        node_id: of the node.
        log: its log.
        index_path: where it keeps passages, which are counted while it reads.
        step: what it does now.
        num_files: files that it has read.
        num_passages: passages of them.
        num_tokens: tokens of them.
        skipped: files that it left out, each with why.
        has_joined: whether it takes part.
        is_slow: whether it took part before it had read everything.
    """

    node_id: str
    log: LogTail
    index_path: Path
    step: str = "starting"
    num_files: int = 0
    num_passages: int = 0
    num_tokens: int = 0
    skipped: dict[str, str] = field(default_factory=dict)
    has_joined: bool = False
    is_slow: bool = False

    def poll(self) -> list[News]:
        """What is new since the last call."""
        news = [line for event in self.log.new_events() for line in self._take(event)]
        if self.step == _READING:
            self._count()
        return news

    def _take(self, event: dict[str, Any]) -> Iterator[News]:
        match event:
            case {"event": "model", "step": str(step)}:
                self.step = step
                yield News(text=step)
            case {"event": "reading_context", "is_given": True}:
                self.step = _READING
                yield News(text=_READING)
            case {"event": "joined"}:
                self.step, self.has_joined = "joined", True
                yield News(text="has joined")
            case {"event": "aggregator_lost", "error": str(error)}:
                self.step = "has lost the aggregator"
                yield News(text=f"{self.step}: {one_line(error)}", is_warning=True)
            case _:
                yield from self._take_texts(event)

    def _take_texts(self, event: dict[str, Any]) -> Iterator[News]:
        match event:
            case {"event": "context_read", "files": int(files), "passages": int(passages)}:
                self.num_files, self.num_passages = files, passages
                self.num_tokens = int(event.get("tokens", 0))
                if files:
                    yield News(text=f"has read {_num(files, 'file')}, {_num(passages, 'passage')}")
            case {"event": "file_skipped", "file": str(name), "reason": str(reason)}:
                if self.skipped.get(name) != reason:
                    self.skipped[name] = reason
                    remedy = f"; {event['remedy']}" if event.get("remedy") else ""
                    yield News(text=f"{name} is not read: {reason}{remedy}", is_warning=True)
            case {"event": "still_indexing", "passages": int(passages)}:
                self.is_slow, self.num_passages = True, passages
                yield News(text=f"goes on reading, {_num(passages, 'passage')} by now")
            case {"event": "nothing_to_give" | "context_unreadable", "why": str(why)}:
                yield News(text=why, is_warning=True)
            case {"event": "policy_unreadable", "why": str(why)}:
                yield News(text=f"gives nothing to anyone: {one_line(why)}", is_warning=True)
            case {"event": "policy_read"}:
                yield News(text="has read its policy")

    def _count(self) -> None:
        """What the index holds by now; nothing is known while it is made."""
        with suppress(ConfigurationError, CannotReadError):
            reader = PassageReader(ReadOnlyDatabase(self.index_path))
            try:
                counts = reader.counts
            finally:
                reader.close()
            self.num_files, self.num_passages = counts.num_files, counts.num_passages


def _num(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def describe_skipped(skipped: Mapping[str, str]) -> str:
    """Files and why, as in "a.png, b.png (unknown kind) and 7 more"; empty if there are none."""
    shown = dict(islice(skipped.items(), _MAX_NAMES))
    parts = [
        f"{', '.join(one_line(name) for name in shown if shown[name] == reason)} ({reason})"
        for reason in dict.fromkeys(shown.values())
    ]
    more = len(skipped) - len(shown)
    return ", ".join(parts) + (f" and {more} more" if more else "")
