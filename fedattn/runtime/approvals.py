"""Asks that a person has to decide, kept in a file so that another process can decide them."""

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from fedattn.core.consent import Ask
from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.runtime.state import APPROVALS_FILE, failing_in_one_line, locked, replace_file

MAX_ENTRIES = 200
MAX_PENDING_OF_A_PUBLISHER = 20
PENDING_S = 24 * 3600.0
DEFAULT_LIFETIME_S = 3600.0
MAX_LIFETIME_S = 30 * 24 * 3600.0
MAX_USES = 10_000


class Decision(StrEnum):
    """What a person said."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"


class Approval(BaseModel):
    """One ask, and what was decided."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(description="Names it.", examples=["3f9a1c20"])
    decision: Decision = Field(description="pending until somebody decides.", examples=["pending"])
    publisher: str = Field(description="Id of the node that gets the rows.", examples=["desk"])
    subject: str = Field(
        description="Who asks, as the publisher says; may be empty.", examples=["anna"]
    )
    purpose: str = Field(
        description="What for, as the publisher says; may be empty.", examples=["maintenance"]
    )
    blocks: tuple[int, ...] = Field(
        description="Zero-based blocks at which rows would be sent.", examples=[[7, 9]]
    )
    rows: int = Field(
        description="Most rows of one head at each block, in the mean of heads and blocks.",
        examples=[96],
    )
    keep_ratio: float = Field(1.0, description="The same as a share of its tokens.", examples=[0.3])
    bytes: int = Field(description="Most bytes in all.", examples=[18816])
    is_asked: bool = Field(
        False,
        description="Whether its rows stay with the node, and it answers the publisher's queries.",
    )
    asked_at: float = Field(description="Seconds since 1970.", examples=[1764334800.0])
    expires_at: float = Field(
        description="When the ask or the decision is forgotten, seconds since 1970.",
        examples=[1764338400.0],
    )
    uses_left: int = Field(0, description="Sessions that may still be sent to.", examples=[1])

    @property
    def ask(self) -> Ask:
        """What it allows, of no particular session."""
        return Ask(
            publisher=self.publisher,
            subject=self.subject,
            purpose=self.purpose,
            layers=self.blocks,
            num_rows=self.rows,
            keep_ratio=self.keep_ratio,
            num_bytes=self.bytes,
            is_asked=self.is_asked,
            session_id="",
        )


_ENTRIES = TypeAdapter(tuple[Approval, ...])


@dataclass(frozen=True, slots=True)
class ApprovalStore:
    """The asks of one node, oldest first. Safe against other processes that read and write them.

    Args:
        folder: the node's state.
        clock: seconds since 1970.
        pause: sleeps for so many seconds, while another process decides.
    """

    folder: Path
    clock: Callable[[], float] = time.time
    pause: Callable[[float], None] = time.sleep

    def entries(self) -> tuple[Approval, ...]:
        """Those that have not expired.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        with self._failing_in_one_line():
            return self._read()

    def approve(
        self, approval_id: str, *, uses: int = 1, lifetime_s: float = DEFAULT_LIFETIME_S
    ) -> Approval:
        """Grant asks of the same publisher, subject and purpose for at most as much.

        Args:
            approval_id: of any entry, also one that was decided otherwise.
            uses: sessions.
            lifetime_s: for how long.

        Raises:
            InvalidRequestError: there is no such entry, or a number is out of its range.
            ConfigurationError: the file cannot be read or written.
        """
        if not (1 <= uses <= MAX_USES and 0 < lifetime_s <= MAX_LIFETIME_S):
            raise InvalidRequestError(
                f"expected 1 to {MAX_USES} uses within at most {MAX_LIFETIME_S:.0f} s, got {uses} "
                f"within {lifetime_s:g} s"
            )
        return self._decide(approval_id, Decision.APPROVED, lifetime_s, uses)

    def deny(self, approval_id: str, *, lifetime_s: float = DEFAULT_LIFETIME_S) -> Approval:
        """Refuse such asks for a while; ends an approval too. Raises as `approve`."""
        if not 0 < lifetime_s <= MAX_LIFETIME_S:
            raise InvalidRequestError(
                f"expected at most {MAX_LIFETIME_S:.0f} s, got {lifetime_s:g} s"
            )
        return self._decide(approval_id, Decision.DENIED, lifetime_s, 0)

    def use(self, ask: Ask) -> Approval | None:
        """What was decided of an ask; an approval is used once by this. None if it cannot be kept.

        A denial counts before any approval, and whatever the size. Nothing that is pending ever
        changes: what a person sees in the list is what they decide.

        Raises:
            ConfigurationError: the file cannot be read or written.
        """
        with self._changing() as entries:
            same = [entry for entry in entries if entry.ask.who == ask.who]
            denied = [entry for entry in same if entry.decision is Decision.DENIED]
            if denied:
                return max(denied, key=lambda entry: entry.expires_at)
            fitting = [entry for entry in same if entry.ask.covers(ask)]
            for entry in fitting:
                if entry.decision is Decision.APPROVED and entry.uses_left > 0:
                    used = entry.model_copy(update={"uses_left": entry.uses_left - 1})
                    at = entries.index(entry)
                    entries[at : at + 1] = [used] if used.uses_left else []
                    return used
            waiting = [entry for entry in fitting if entry.decision is Decision.PENDING]
            return waiting[-1] if waiting else self._enqueue(ask, entries)

    def give_back(self, used: Approval) -> None:
        """Nothing came of a use, so it may be used once more.

        What was decided since stays so, and a list that is full meanwhile takes nothing back.

        Args:
            used: what `use` returned.

        Raises:
            ConfigurationError: the file cannot be read or written.
        """
        with self._changing() as entries:
            for place, entry in enumerate(entries):
                if entry.id == used.id:
                    if entry.decision is Decision.APPROVED:
                        more = min(MAX_USES, entry.uses_left + 1)
                        entries[place] = entry.model_copy(update={"uses_left": more})
                    return
            was_last = used.uses_left == 0  # that use, and no person, took it from the list
            if was_last and used.expires_at > self.clock() and len(entries) < MAX_ENTRIES:
                entries.append(used.model_copy(update={"uses_left": 1}))

    def _enqueue(self, ask: Ask, entries: list[Approval]) -> Approval | None:
        pending = Counter(e.publisher for e in entries if e.decision is Decision.PENDING)
        is_full = len(entries) >= MAX_ENTRIES
        if is_full or pending[ask.publisher] >= MAX_PENDING_OF_A_PUBLISHER:
            return None
        now = self.clock()
        entry = Approval(
            id=secrets.token_hex(4),
            decision=Decision.PENDING,
            publisher=ask.publisher,
            subject=ask.subject,
            purpose=ask.purpose,
            blocks=ask.layers,
            rows=ask.num_rows,
            keep_ratio=ask.keep_ratio,
            bytes=ask.num_bytes,
            is_asked=ask.is_asked,
            asked_at=now,
            expires_at=now + PENDING_S,
        )
        entries.append(entry)
        return entry

    def _decide(
        self, approval_id: str, decision: Decision, lifetime_s: float, uses: int
    ) -> Approval:
        with self._changing() as entries:
            for place, entry in enumerate(entries):
                if entry.id == approval_id:
                    expires_at = self.clock() + lifetime_s
                    update = {"decision": decision, "uses_left": uses, "expires_at": expires_at}
                    entries[place] = entry.model_copy(update=update)
                    return entries[place]
        raise InvalidRequestError(
            f"no ask has the id {approval_id[:40]!r}; `fedattn approvals` lists those there are"
        )

    @contextmanager
    def _changing(self) -> Iterator[list[Approval]]:
        """The entries, written back at the end if they are others."""
        lock = self.folder / f"{APPROVALS_FILE}.lock"
        with self._failing_in_one_line(), locked(lock, pause=self.pause):
            before = self._read()
            entries = list(before)
            yield entries
            if tuple(entries) != before:
                content = _ENTRIES.dump_json(tuple(entries), indent=1)
                replace_file(self.folder / APPROVALS_FILE, content + b"\n")

    def _read(self) -> tuple[Approval, ...]:
        try:
            content = (self.folder / APPROVALS_FILE).read_bytes()
        except FileNotFoundError:
            return ()
        now = self.clock()
        return tuple(e for e in _ENTRIES.validate_json(content) if e.expires_at > now)

    @contextmanager
    def _failing_in_one_line(self) -> Iterator[None]:
        path = self.folder / APPROVALS_FILE
        try:
            with failing_in_one_line("approvals", path, "let this user write"):
                yield
        except ValidationError:
            raise ConfigurationError(
                f"approvals {path}: expected a list of asks, got something else; move the file "
                f"away, and every ask is asked anew"
            ) from None
