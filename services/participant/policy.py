"""A node's policy, read again whenever its file changes; without one, the default."""

import time
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError

from fedattn.core.consent import Ask
from fedattn.core.errors import ApprovalNeededError, ConfigurationError, PolicyRefusedError
from fedattn.runtime.approvals import Approval
from services.participant.approvals import ApprovalGate
from services.participant.policy_rules import Policy, refuse
from services.participant.sliding_hour import MAX_SESSIONS, SlidingHour

MAX_FILE_BYTES = 1 << 20

log = structlog.get_logger(__name__)


def read_policy(path: Path, content: bytes | None = None) -> Policy:
    """The policy that a file says.

    Args:
        path: of the file, for messages too.
        content: its bytes, if they are known.

    Raises:
        ConfigurationError: one line with file, key, expected, got and remedy.
    """
    try:
        read = tomllib.loads((_read(path) if content is None else content).decode())
        return Policy.model_validate(read)
    except OSError as error:
        why = f"it cannot be read ({(error.strerror or type(error).__name__).lower()})"
        remedy = "let this user read it"
    except UnicodeDecodeError as error:
        why, remedy = f"expected UTF-8, got another byte at {error.start}", "save it as UTF-8"
    except ValidationError as error:
        why, remedy = _describe(error.errors()[0]), "docs/policy.md has every key"
    except ValueError as error:  # of TOML itself, or of a number in it with too many digits
        why, remedy = f"expected TOML, got: {error!s:.200}", "correct it"
    except RecursionError:
        why, remedy = "expected flat lists and tables, got deeply nested ones", "correct it"
    raise ConfigurationError(f"policy {path}: {why}; {remedy}")


def check_policy(path: Path | None) -> None:
    """Read a policy once, before anything slow begins.

    Raises:
        ConfigurationError: as `read_policy`.
    """
    if path is not None:
        read_policy(path)


@dataclass(slots=True)
class PolicyFile:
    """What a node's owner lets others have. Its files are read where it is called.

    One call at a time, from any thread; `note_sent` may come at any moment, and waits for no file.
    A file that cannot be read, or says what is no policy, refuses everything until it is mended.

    Args:
        path: of the file; None for the default policy.
        approvals: where a person decides; None if nobody can, so that what needs it is declined.
        monotonic: clock of the hourly limits.
        local_time: clock of hours and days.
    """

    path: Path | None = None
    approvals: ApprovalGate | None = None
    monotonic: Callable[[], float] = time.monotonic
    local_time: Callable[[], datetime] = datetime.now
    _content: bytes | None = None
    _policy: Policy | None = None
    _failure: str = ""
    _hour: SlidingHour = field(init=False)

    def __post_init__(self) -> None:
        self._hour = SlidingHour(self.monotonic)
        if self.path is None:
            self._policy = Policy()

    def current(self) -> Policy:
        """The policy as its file says it now.

        Raises:
            PolicyRefusedError: there is none to go by; the log says why.
        """
        if self.path is not None:
            self._refresh(self.path)
        if self._policy is None:
            raise PolicyRefusedError(
                "its policy cannot be read, so it gives nothing; only its owner can mend that, "
                "and its log says how"
            )
        return self._policy

    def check(self, ask: Ask, policy: Policy | None = None) -> Approval | None:
        """Admit a session, or say by which rule not.

        A session that was admitted counts with the bytes it asks for until `note_sent`. It may be
        checked again, with its final sizes, and counts once.

        Args:
            ask: what the session wants.
            policy: as it was read before; None for what its file says now.

        Returns:
            The approval that was used for it, if it needed one.

        Raises:
            PolicyRefusedError: the owner does not want it.
            ApprovalNeededError: the owner has to decide first.
        """
        policy = self.current() if policy is None else policy
        policy.check(ask, self.local_time())
        self._check_hour(policy, ask)
        used = None
        if policy.needs_approval(ask) and not self._hour.has_admitted(ask):
            if self.approvals is None:
                raise ApprovalNeededError(
                    "its owner has to approve this, and its node keeps no list of such asks; only "
                    "its owner can change that"
                )
            used = self.approvals.require(ask)
        self._hour.admit(ask)
        return used

    def give_back(self, used: Approval) -> None:
        """Nothing came of a session that used this approval: it is good for another."""
        if self.approvals is not None:
            self.approvals.give_back(used)

    def note_sent(self, num_bytes: int, session_id: str) -> None:
        """A session is over here and has sent so much: this counts from now on."""
        self._hour.settle(session_id, num_bytes)

    def spend_answers(self, policy: Policy, session_id: str, count: int, num_bytes: int) -> None:
        """Count answers to queries before they are made.

        Args:
            policy: as the session was let in.
            session_id: of a session that runs.
            count: tokens whose queries are to be answered at one block.
            num_bytes: that these answers take.

        Raises:
            PolicyRefusedError: the owner lets no more be asked.
        """
        counted = self._hour.count_answers(session_id, count, num_bytes)
        if counted is None:
            raise PolicyRefusedError("its owner has let no such session ask, or its hour is over")
        of_session, of_hour, size = counted
        for rule, what, got, limit in (
            ("max_answers_per_query", "answers", of_session, policy.max_answers_per_query),
            ("max_answers_per_hour", "answers", of_hour, policy.max_answers_per_hour),
            ("max_bytes_per_query", "bytes", size, policy.max_bytes_per_query),
            (
                "max_bytes_per_hour",
                "bytes",
                size + self._hour.num_bytes(but=session_id),
                policy.max_bytes_per_hour,
            ),
        ):
            if limit is not None and got > limit:
                refuse(rule, f"{got} {what} were asked for", str(limit))

    def _check_hour(self, policy: Policy, ask: Ask) -> None:
        queries = self._hour.num_sessions(but=ask.session_id)
        limit = policy.max_queries_per_hour
        limit = MAX_SESSIONS if limit is None else min(limit, MAX_SESSIONS)
        if queries >= limit:
            refuse("max_queries_per_hour", f"{queries} were in the last hour", str(limit))
        sent = self._hour.num_bytes(but=ask.session_id)
        limit = policy.max_bytes_per_hour
        if limit is not None and sent + ask.num_bytes > limit:
            asked = f"{ask.num_bytes} bytes after {sent} in the last hour"
            refuse("max_bytes_per_hour", asked, str(limit))

    def _refresh(self, path: Path) -> None:
        try:
            content = _read(path)
        except OSError as error:
            self._fail(f"policy {path}: it cannot be read ({error.strerror or error})")
            return
        if content == self._content:
            return
        try:
            self._policy = read_policy(path, content)
        except ConfigurationError as error:
            self._fail(str(error))
        else:
            log.info("policy_read", keys=sorted(self._policy.model_fields_set))
            self._failure = ""
        self._content = content

    def _fail(self, why: str) -> None:
        self._policy = self._content = None
        if why != self._failure:
            log.error("policy_unreadable", why=why, consequence="every ask is refused")
            self._failure = why


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise OSError(f"it has more than {MAX_FILE_BYTES} bytes")
    return content


def _describe(fault: Any) -> str:
    """Key, expected and got of the first thing that pydantic found."""
    key = ".".join(str(part) for part in fault["loc"]) or "withhold"
    name = str(fault["loc"][0]) if fault["loc"] else "withhold"
    if fault["type"] == "extra_forbidden":
        known = ", ".join(Policy.model_fields)
        return f"{key}: expected one of the keys {known}, got another"
    expected = Policy.model_fields[name].title
    if fault["type"] == "value_error":
        return f"{key}: expected {expected}, but {fault['ctx']['error']}"
    return f"{key}: expected {expected}, got {fault['input']!r:.80}"
