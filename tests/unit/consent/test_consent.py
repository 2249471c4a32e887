"""The record has what left and what did not, and nobody between can fill it."""

import asyncio
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedattn.core.budget import ByteBudget
from fedattn.core.compression import Compression
from fedattn.core.consent import Ask
from fedattn.core.errors import (
    ApprovalNeededError,
    ConfigurationError,
    IdentityMismatchError,
    InvalidRequestError,
    NodeBusyError,
    PolicyRefusedError,
    SessionStateError,
)
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.request import SessionOptions, SessionRequest, describe_prefix
from fedattn.core.selection import LEARNED
from fedattn.core.spans import PrefixMode
from fedattn.runtime.approvals import Approval, ApprovalStore
from fedattn.runtime.audit import AuditEvent, AuditLog
from fedattn.runtime.audit_chain import read_log
from services.participant.approvals import ApprovalGate
from services.participant.consent import Consent, Leave
from services.participant.policy import PolicyFile
from services.participant.policy_rules import Policy
from services.participant.threads import NodeThreads
from tests.harness.samples import SHAPE
from tests.unit.consent.asks import Clock

REQUEST = SessionRequest(
    node_id="desk",
    key=None,
    span_len=5,
    prefix=describe_prefix(PrefixMode.PUBLIC, [1]),
    plans=RolePlans(contributors=SyncPlan((1, 2)), publisher=SyncPlan((1, 2))),
    max_new_tokens=5,
    options=SessionOptions(),
)
UNBELIEVED = IdentityMismatchError("who knows")


class Owner:
    """A consent and the files behind it."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.store = ApprovalStore(folder)
        self.path = folder / "policy.toml"
        self.path.touch()
        self.audit = folder / "audit.jsonl"
        policy = PolicyFile(self.path, ApprovalGate(self.store))
        self.consent = Consent(policy, AuditLog(self.audit), NodeThreads(1), self.clock)

    async def give(
        self,
        session_id: str = "s1",
        policy: Policy | None = None,
        request: SessionRequest = REQUEST,
        *,
        can_score: bool = True,
    ) -> Leave:
        return await self.consent.give_leave(
            session_id,
            request,
            10,
            policy=policy or await self.consent.current_policy(),
            num_withheld=0,
            shape=SHAPE,
            pressure_keep_ratio=1.0,
            can_score=can_score,
            lifetime_s=60.0,
        )

    def entries(self) -> list[dict[str, object]]:
        return [dict(entry) for entry in read_log(self.audit).entries]

    def events(self) -> list[object]:
        return [entry["event"] for entry in self.entries()]

    async def approve(self) -> None:
        self.path.write_text('approval = "always"')
        with pytest.raises(ApprovalNeededError):
            await self.give("asking")
        self.store.approve(self.store.entries()[0].id)


@pytest.fixture
async def owner(tmp_path: Path) -> AsyncIterator[Owner]:
    owner = Owner(tmp_path)
    yield owner
    await owner.consent.settled()
    owner.consent.threads.close()
    owner.consent.close()


async def test_what_cannot_be_believed_is_counted_now_and_then(owner: Owner) -> None:
    consent = owner.consent
    for _ in range(1000):
        await consent.refuse("s", None, UNBELIEVED)
    assert owner.entries() == []
    await consent.refuse("s", REQUEST, NodeBusyError("busy"))
    await consent.refuse("s", None, UNBELIEVED)
    owner.clock.seconds = 59.0
    await consent.refuse("s", REQUEST, NodeBusyError("busy"))
    owner.clock.seconds = 60.0
    await consent.refuse("s", REQUEST, NodeBusyError("busy"))
    assert owner.events() == ["unbelieved", "declined", "declined", "unbelieved", "declined"]
    counts = [str(e["detail"]).split()[0] for e in owner.entries() if e["event"] == "unbelieved"]
    assert counts == ["1000", "1"]


async def test_count_is_written_when_the_node_ends(owner: Owner) -> None:
    await owner.consent.refuse("s", None, UNBELIEVED)
    owner.consent.close()
    assert owner.events() == ["unbelieved"]


async def test_session_that_never_began_is_in_the_record(owner: Owner) -> None:
    await owner.give()
    owner.consent.drop("s1")
    owner.consent.drop("s1")
    await owner.consent.settled()
    assert owner.events() == ["allowed", "dropped"]
    dropped = owner.entries()[-1]
    assert (dropped["publisher"], dropped["rows"], dropped["bytes"]) == ("desk", 0, 0)
    assert dropped["outcome"] == "not_begun"


async def test_session_that_never_began_uses_no_approval(owner: Owner) -> None:
    await owner.approve()
    await owner.give()
    owner.consent.drop("s1")
    await owner.consent.settled()
    await owner.give("s2")
    with pytest.raises(ApprovalNeededError):
        await owner.give("s3")


async def test_leave_that_cannot_be_written_down_uses_no_approval(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_log: AuditLog, _event: AuditEvent) -> str:
        raise OSError(28, "No space left on device")

    await owner.approve()
    with monkeypatch.context() as patched:
        patched.setattr(AuditLog, "_append", full)
        with pytest.raises(ConfigurationError, match="no space left"):
            await owner.give()
    await owner.give()


async def test_leave_that_nobody_waits_for_any_more_is_taken_back(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await owner.approve()
    policy = await owner.consent.current_policy()
    begun, goes_on = asyncio.Event(), threading.Event()
    loop, check = asyncio.get_running_loop(), PolicyFile.check

    def slow(policy: PolicyFile, ask: Ask, rules: Policy | None = None) -> Approval | None:
        loop.call_soon_threadsafe(begun.set)
        goes_on.wait()
        return check(policy, ask, rules)

    monkeypatch.setattr(PolicyFile, "check", slow)
    giving = asyncio.create_task(owner.give())
    await begun.wait()  # which takes a loop that is not in the check
    giving.cancel()
    await asyncio.wait({giving})
    assert giving.cancelled()
    with pytest.raises(SessionStateError):
        await owner.give(policy=policy)
    goes_on.set()
    await owner.consent.settled()
    assert owner.events() == ["allowed", "dropped"]
    await owner.give("s2")


async def test_session_has_leave_once(owner: Owner) -> None:
    await owner.give()
    with pytest.raises(SessionStateError, match="leave already"):
        await owner.give()
    await owner.consent.note_sent("s1", {1: 100}, ["desk"], "complete", num_rows=7, span_len=10)
    assert owner.events() == ["allowed", "sent"]


async def test_refused_session_may_be_asked_for_again(owner: Owner) -> None:
    owner.path.write_text('publishers = ["ward"]')
    with pytest.raises(PolicyRefusedError):
        await owner.give()
    owner.path.write_text("")
    await owner.give()


async def test_session_is_judged_by_the_policy_its_text_was_read_with(owner: Owner) -> None:
    policy = await owner.consent.current_policy()
    owner.path.write_text("max_rows = 1")
    leave = await owner.consent.give_leave(
        "s1",
        REQUEST,
        10,
        policy=policy,
        num_withheld=0,
        shape=SHAPE,
        pressure_keep_ratio=1.0,
        can_score=True,
        lifetime_s=60.0,
    )
    assert (leave.max_keep_ratio, leave.ask.num_rows) == (1.0, 10)


async def test_entry_has_the_rows_that_travelled_and_their_share(owner: Owner) -> None:
    leave = await owner.give()
    assert (leave.ask.num_rows, leave.ask.keep_ratio) == (10, 1.0)
    await owner.consent.note_sent(
        "s1", {1: 60, 2: 40}, ["desk"], "complete", num_rows=2.5, span_len=10
    )
    sent = owner.entries()[-1]
    assert (sent["event"], sent["rows"], sent["bytes"]) == ("sent", 3, 100)
    assert sent["keep_ratio"] == 0.25


@pytest.mark.parametrize(("can_score", "share", "rows"), [(True, 0.6, 6), (False, 1.0, 10)])
async def test_owner_is_asked_for_the_most_that_any_rung_takes(
    owner: Owner, can_score: bool, share: float, rows: int
) -> None:
    """At blocks 1 and 2: half and half of the rows, then all and two of ten."""
    half = Compression(selector=LEARNED, keep_ratio=0.5, head_shares=bytes([0, 127, 127, 0]))
    more = replace(half, head_shares=bytes([0, 255, 51, 0]))
    request = replace(
        REQUEST,
        compression=half,
        coarser=(more,),
        options=SessionOptions(budget=ByteBudget(kv_bytes=1)),
    )
    leave = await owner.give(request=request, can_score=can_score)
    assert (leave.ask.keep_ratio, leave.ask.num_rows) == (share, rows)


async def test_shares_of_heads_that_hide_how_many_rows_they_send_are_refused(owner: Owner) -> None:
    owner.path.write_text("max_rows = 5")
    hidden = Compression(selector=LEARNED, keep_ratio=0.1, head_shares=bytes([255] * 4))
    with pytest.raises(InvalidRequestError, match=r"at most 50% .* send 100%"):
        await owner.give(request=replace(REQUEST, compression=hidden))
    honest = replace(hidden, keep_ratio=1.0)
    leave = await owner.give(request=replace(REQUEST, compression=honest))
    assert leave.ask.keep_ratio == 0.5
