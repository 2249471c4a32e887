"""Who gives decides: policies, approvals and the record, over a real network with certificates."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from fedattn.core.errors import (
    ApprovalNeededError,
    FedAttnError,
    InternalError,
    NothingToGiveError,
    PolicyRefusedError,
)
from fedattn.core.node_id import AGGREGATOR, GATEWAY
from fedattn.model.loading import LoadedModel
from fedattn.runtime.approvals import ApprovalStore
from fedattn.runtime.audit import AuditLog
from fedattn.runtime.audit_chain import read_log
from fedattn.wire.identity import Identity, Kind
from fedattn.wire.status import error_from_rpc
from fedattn.wire.stubs import ParticipantStub
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.participant.approvals import ApprovalGate
from services.participant.consent import Consent
from services.participant.contributor import Contributor
from services.participant.node import ParticipantNode
from services.participant.policy import PolicyFile
from tests.harness.channels import way_to
from tests.harness.hostile import Tricks, hostile_aggregator
from tests.harness.identities import certificates_of
from tests.harness.networks import query
from tests.harness.runners import make_node, running_aggregator, running_participant
from tests.harness.tiny import words

PUBLISHER = "publisher"


@dataclass(frozen=True, slots=True)
class Owned:
    """One contributor with an owner, and a publisher."""

    aggregator: str
    node: ParticipantNode
    publisher: ParticipantStub
    policy: Path
    approvals: ApprovalStore
    audit: Path

    async def ask(self, **changes: object) -> session_pb2.SessionReport:
        """The report of a query.

        Raises:
            FedAttnError: it failed.
        """
        changes = {"plan": "1,2,3", **changes}
        try:
            events = [event async for event in self.publisher.Query(query(**changes))]
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error, InternalError("unreachable")) from None
        return events[-1].result.report

    def noted(self) -> list[tuple[str, str]]:
        """Event and outcome of each entry."""
        return [(str(entry["event"]), str(entry["outcome"])) for entry in self.entries()]

    def entries(self) -> list[dict[str, object]]:
        log = read_log(self.audit)
        assert not log.broken_line
        return [dict(entry) for entry in log.entries]


@asynccontextmanager
async def owned(
    model: LoadedModel, folder: Path, policy: str, tricks: Tricks | None = None
) -> AsyncIterator[Owned]:
    """With tricks, the aggregator is hostile and keeps no record."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        if tricks is None:
            record = AuditLog(folder / "aggregator.jsonl")
            own = certificates_of(AGGREGATOR)
            address = await enter(running_aggregator(certificates=own, audit=record))
        else:
            address, hostile = await enter(hostile_aggregator())
            hostile.tricks = tricks
        (folder / "a.txt").write_text(words(5, 6))
        path = folder / "policy.toml"
        path.write_text(policy)
        owner = make_node("a", model, folder / "a.txt", certificates=certificates_of("a"))
        store = ApprovalStore(folder)
        owner.policy = owner.consent.policy = PolicyFile(path, ApprovalGate(store))
        owner.consent.audit = AuditLog(folder / "audit.jsonl")
        await enter(running_participant(owner, address))
        node = make_node(PUBLISHER, model, None, certificates=certificates_of(PUBLISHER))
        node.publishes = True
        await enter(running_participant(node, address))
        way = await enter(way_to(PUBLISHER, address, certificates_of(GATEWAY)))
        yield Owned(address, owner, way.stub, path, store, folder / "audit.jsonl")


async def test_default_policy_gives_every_block_but_the_first(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with owned(model, tmp_path, "") as network:
        with pytest.raises(PolicyRefusedError, match="lowest_block"):
            await network.ask(plan="all")
        await network.ask()
        sent = network.entries()[-1]
    assert network.noted() == [
        ("declined", "policy_refused"),
        ("allowed", "allowed"),
        ("sent", "complete"),
    ]
    assert (sent["publisher"], sent["blocks"], sent["receivers"]) == (
        PUBLISHER,
        [1, 2, 3],
        [PUBLISHER],
    )
    assert isinstance(sent["bytes"], int)
    assert sent["bytes"] > 0


@pytest.mark.parametrize(
    ("policy", "changes", "rule"),
    [
        ('publishers = ["desk-*"]', {}, "publishers"),
        ('subjects = ["*@ward-1"]', {"subject": "eve@elsewhere"}, "subjects"),
        ('purposes = ["maintenance"]', {"purpose": "curiosity"}, "purposes"),
        ("max_blocks = 2", {}, "max_blocks"),
        ("max_bytes_per_query = 10", {}, "max_bytes_per_query"),
        ("max_queries_per_hour = 0", {}, "max_queries_per_hour"),
        ("what = 1", {}, "policy cannot be read"),
    ],
)
async def test_what_the_owner_does_not_want_is_refused_by_its_rule(
    policy: str, changes: dict[str, object], rule: str, model: LoadedModel, tmp_path: Path
) -> None:
    async with owned(model, tmp_path, policy) as network:
        with pytest.raises(PolicyRefusedError, match=rule):
            await network.ask(**changes)
        assert network.noted() == [("declined", "policy_refused")]


async def test_policy_counts_from_the_moment_it_changes(model: LoadedModel, tmp_path: Path) -> None:
    async with owned(model, tmp_path, "") as network:
        await network.ask()
        network.policy.write_text('publishers = ["desk"]')
        with pytest.raises(PolicyRefusedError, match="publishers"):
            await network.ask()


async def test_owner_sends_fewer_rows_and_lets_nobody_cache_them(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with owned(model, tmp_path, "max_rows = 3\ncache_lifetime_s = 0.0") as network:
        await network.ask()
        report = await network.ask()
    member = report.members[0]
    assert member.row_source != session_pb2.ROW_SOURCE_PUBLISHER_CACHE
    assert member.compression.keep_ratio == pytest.approx(3 / member.span_len)


async def test_a_person_approves_or_denies(model: LoadedModel, tmp_path: Path) -> None:
    async with owned(model, tmp_path, 'approval = "always"') as network:
        with pytest.raises(ApprovalNeededError, match="owner has to approve"):
            await network.ask(purpose="audit")
        (pending,) = network.approvals.entries()
        network.approvals.approve(pending.id)
        await network.ask(purpose="audit")
        with pytest.raises(ApprovalNeededError):  # it was good for one
            await network.ask(purpose="audit")
        again = next(one for one in network.approvals.entries() if one.decision == "pending")
        network.approvals.deny(again.id)
        with pytest.raises(PolicyRefusedError, match="denied"):
            await network.ask(purpose="audit")
    assert [event for event, _ in network.noted()] == [
        "declined", "allowed", "sent", "declined", "declined",
    ]  # fmt: skip


async def test_withheld_rows_do_not_travel(model: LoadedModel, tmp_path: Path) -> None:
    word = words(5, 6).split()[2]
    policy = f"withhold = [\"own\"]\n[patterns]\nown = '{word}'"
    async with owned(model, tmp_path, policy) as network:
        report = await network.ask()
        (sent,) = [entry for entry in network.entries() if entry["event"] == "sent"]
    span_len = report.members[0].span_len
    assert sent["rows"] == span_len - 1


async def test_text_that_is_withheld_as_a_whole_is_nothing_to_give(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with owned(
        model, tmp_path, "withhold = [\"own\"]\n[patterns]\nown = '(?s).+'"
    ) as network:
        with pytest.raises(NothingToGiveError, match="its owner withholds"):
            await network.ask()


async def test_rows_go_to_no_contributor_that_the_owner_does_not_want(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with owned(model, tmp_path, 'publishers = ["publisher"]') as network:
        (tmp_path / "b.txt").write_text(words(20, 6))
        other = make_node("b", model, tmp_path / "b.txt", certificates=certificates_of("b"))
        async with running_participant(other, network.aggregator):
            report = await network.ask(min_participants=1)
            assert report.members[0].state == session_pb2.OUTCOME_LOST
            assert "receivers: 'b' would read its rows too" in report.members[0].detail
            assert ("declined", "policy_refused") in network.noted()
            report = await network.ask(independent=True, publisher_plan="1,2,3")
            assert report.members[0].state == session_pb2.OUTCOME_COMPLETE


async def test_aggregator_records_who_asked_whom_for_what(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with owned(model, tmp_path, "") as network:
        await network.ask(purpose="audit", subject="anna")
        with pytest.raises(PolicyRefusedError):
            await network.ask(plan="all")
    entries = read_log(tmp_path / "aggregator.jsonl").entries
    assert [entry["event"] for entry in entries] == ["opened", "closed", "refused"]
    opened, closed, refused = entries
    assert (opened["publisher"], opened["subject"], opened["purpose"]) == (
        PUBLISHER, "anna", "audit",
    )  # fmt: skip
    assert closed["receivers"] == ["a", PUBLISHER]
    assert closed["bytes"] > 0
    assert refused["outcome"] == "policy_refused"


async def test_nothing_leaves_that_cannot_be_written_down(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with owned(model, tmp_path, "") as network:

        def full(_log: AuditLog, _event: object) -> str:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(AuditLog, "_append", full)
        with pytest.raises(FedAttnError, match="audit log"):
            await network.ask()


class InvitesTwice(Tricks):
    """Invites a again, in words that the publisher signed, before and after a session begins."""

    def __init__(self) -> None:
        self.invite = pb.Invite()
        self.num_again = 0

    def told(self, node_id: str, response: pb.ControlResponse) -> Iterable[pb.ControlResponse]:
        yield response
        if node_id == "a" and response.HasField("invite"):
            self.invite = response.invite
        if node_id == "a" and response.WhichOneof("body") in {"invite", "start"}:
            yield pb.ControlResponse(invite=self.again())

    def again(self) -> pb.Invite:
        self.num_again += 1
        request = session_pb2.SessionRequest.FromString(self.invite.request.payload)
        request.max_new_tokens += self.num_again
        own = Identity(certificates_of(PUBLISHER))
        invite = pb.Invite()
        invite.CopyFrom(self.invite)
        invite.request.CopyFrom(own.sign(Kind.REQUEST, request.SerializeToString()))
        return invite

    def says(self, node_id: str, request: pb.ControlRequest) -> Iterable[pb.ControlRequest]:
        if request.invite_reply.decline.code != "session_state":
            yield request


async def test_second_invite_of_a_session_does_not_touch_its_leave(
    model: LoadedModel, tmp_path: Path
) -> None:
    async with owned(model, tmp_path, "", InvitesTwice()) as network:
        await network.ask()
        await network.node.admission.wait_idle()
    events = network.noted()
    assert sorted(events) == [
        ("allowed", "allowed"),
        ("declined", "session_state"),
        ("declined", "session_state"),
        ("sent", "complete"),
    ]


class Garbage(Tricks):
    """Invites a to what nobody signed, and under names that are none."""

    def told(self, node_id: str, response: pb.ControlResponse) -> Iterable[pb.ControlResponse]:
        if node_id == "a" and response.HasField("invite"):
            for number in range(20):
                invite = pb.Invite()
                invite.CopyFrom(response.invite)
                invite.session_id = f"{number:032x}"
                invite.request.payload += b" "
                yield pb.ControlResponse(invite=invite)
        yield response


async def test_garbage_leaves_one_line_in_the_record(model: LoadedModel, tmp_path: Path) -> None:
    async with owned(model, tmp_path, "", Garbage()) as network:
        await network.ask()
        await network.node.admission.wait_idle()
    assert sorted(event for event, _ in network.noted()) == ["allowed", "sent", "unbelieved"]


@pytest.mark.parametrize("session_id", ["", "s1", "A" * 32, "0" * 33, "0" * 31 + "\n"])
async def test_invite_whose_session_has_no_proper_name_is_declined(
    session_id: str, model: LoadedModel
) -> None:
    node = make_node("a", model, None)
    contributor = Contributor(node, None)  # type: ignore[arg-type]
    reply = await contributor.answer(pb.Invite(session_id=session_id))
    node.close()
    assert (reply.session_id, reply.decline.code) == (session_id, "invalid_request")
    assert "expected 32 hex digits" in reply.decline.message


@pytest.mark.parametrize("is_full", [False, True])
async def test_place_is_given_back_after_what_left_is_written_down(
    is_full: bool, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with owned(model, tmp_path, "") as network:
        active: list[int] = []
        note_sent = Consent.note_sent

        async def counted(*args: Any, **kwargs: Any) -> None:
            await note_sent(*args, **kwargs)
            active.append(network.node.admission.active_sessions)
            if is_full:
                raise InternalError("no room")

        monkeypatch.setattr(Consent, "note_sent", counted)
        await network.ask()
        await network.node.admission.wait_idle()
        assert active == [1]
        assert network.noted()[-1] == ("sent", "complete")
