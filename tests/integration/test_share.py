"""What contributors learn of a question, and that nobody else does or can change it."""

import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from fedattn.core.errors import IdentityMismatchError
from fedattn.core.node_id import AGGREGATOR
from fedattn.core.share import Hint, Share
from fedattn.model.loading import LoadedModel
from fedattn.wire.hints import seal_hint, sign_node_key
from fedattn.wire.identity import Identity
from fedattn.wire.requests import key_from_wire
from fedattn.wire.sealing import KeyPair
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2
from services.participant.policy import PolicyFile
from services.participant.policy_rules import Policy
from tests.harness.hostile import Tricks
from tests.harness.identities import certificates_of
from tests.harness.victims import Victims, outcomes, reason, running_victims

QUESTION = "w33 w34 w35 w36"
NOTHING, TOPIC, ALL = (
    session_pb2.SHARE_NOTHING,
    session_pb2.SHARE_TOPIC,
    session_pb2.SHARE_QUESTION,
)


@pytest.fixture
async def victims(model: LoadedModel, tmp_path: Path) -> AsyncIterator[Victims]:
    async with running_victims(model, tmp_path) as running:
        yield running


def long_text(*firsts: str) -> str:
    """Passages of 51 tokens each."""
    return "\n\n".join(f"{first} " + "w1 " * 50 for first in firsts)


class Passing(Tricks):
    """Keeps what passes, by who gets it."""

    def __init__(self) -> None:
        self.told_to: dict[str, list[pb.ControlResponse]] = {}
        self.got: list[bytes] = []
        self.all: list[bytes] = []

    def opens(self, request: pb.OpenSessionRequest) -> pb.OpenSessionRequest:
        self.all.append(request.SerializeToString())
        return request

    def told(self, node_id: str, response: pb.ControlResponse) -> Iterable[pb.ControlResponse]:
        self.told_to.setdefault(node_id, []).append(response)
        self.all.append(response.SerializeToString())
        yield response

    def says(self, node_id: str, request: pb.ControlRequest) -> Iterable[pb.ControlRequest]:
        self.all.append(request.SerializeToString())
        yield request


def masked(message: pb.ControlResponse) -> bytes:
    """A command without what is drawn anew in each session, however it is asked."""
    plain = pb.ControlResponse()
    plain.CopyFrom(message)
    match plain.WhichOneof("body"):
        case "invite":
            request = session_pb2.SessionRequest.FromString(plain.invite.request.payload)
            for name in ("nonce", "issued_at_s", "key"):
                request.ClearField(name)
            request.options.ClearField("deadline_s")
            plain.invite.request.CopyFrom(session_pb2.Signed(payload=request.SerializeToString()))
            plain.invite.ClearField("session_id")
            plain.invite.ClearField("reply_within_s")
        case "start":
            plain.start.terms.ClearField("session_id")
            plain.start.terms.ClearField("deadline_s")
            plain.start.ClearField("member_token")
            plain.start.ClearField("statements")  # of contributors, who know no more
    return plain.SerializeToString()


async def test_nothing_that_depends_on_the_question_reaches_a_contributor_that_is_told_nothing(
    victims: Victims,
) -> None:
    seen = []
    for question in ("w33 w34 w35", "w60 w61 w62 w63 w64 w65 w66"):
        passing = Passing()
        await victims.ask(passing, question=question, share=NOTHING)
        seen.append({name: list(map(masked, told)) for name, told in passing.told_to.items()})
    assert seen[0] == seen[1]
    assert {"a", "b"} <= seen[0].keys()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"share": ALL}, "w33"), ({"share": TOPIC, "topic": "w44 w45"}, "w44")],
)
async def test_contributors_choose_by_what_they_are_told_and_the_aggregator_sees_none_of_it(
    victims: Victims, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    (tmp_path / "a.txt").write_text(long_text("w10", "w33", "w44"))
    passing = Passing()
    report = await victims.ask(passing, question=QUESTION, node_tokens=60, **changes)
    a = next(one for one in report.members if one.node_id == "a")
    assert (a.num_passages, a.context.num_passages, a.text_len) == (1, 3, 51)
    given = victims.said("contributed")
    numbers = [int(found) for found in re.findall(r"'passages': \[(\d+)\]", given)]
    texts = [victims.nodes[0].context.store.get(number) for number in numbers]
    assert any(one is not None and one.text.startswith(words) for one in texts)
    passed = b"".join(passing.all)
    for told in (QUESTION, QUESTION[:7], "w44 w45"):
        assert told.encode() not in passed


async def test_a_node_without_a_passage_that_fits_sends_nothing_and_says_so(
    victims: Victims, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text(long_text("w10", "w20", "w30"))
    report = await victims.ask(Tricks(), question=QUESTION, share=ALL)
    assert outcomes(report)["a"] == "EMPTY"
    assert "none of 3 passages fits what is asked" in reason(report, "a")
    named = await victims.ask(Tricks(), question=QUESTION, share=ALL, contributors=["a", "b"])
    assert outcomes(named) == {"a": "EMPTY", "b": "COMPLETE", "publisher": "COMPLETE"}


async def test_an_owner_may_refuse_to_know(victims: Victims, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('shares = ["nothing"]\nlowest_block = 0\n')
    victims.nodes[0].policy = victims.nodes[0].consent.policy = PolicyFile(path)
    report = await victims.ask(Tricks(), question=QUESTION, share=ALL)
    assert outcomes(report)["a"] == "EXCLUDED"
    assert "by the rule shares: share question was asked for" in reason(report, "a")
    assert outcomes(await victims.ask(Tricks(), share=NOTHING))["a"] == "COMPLETE"


class OtherHint(Tricks):
    """Tells contributors another question, sealed to their real keys."""

    def opens(self, request: pb.OpenSessionRequest) -> pb.OpenSessionRequest:
        asked = session_pb2.SessionRequest.FromString(request.request.payload)
        for hint in request.hints:
            key = session_pb2.NodeKey.FromString(self.keys[hint.node_id].payload).key
            other = Hint(text="w1 w2")
            hint.sealed = seal_hint(other, key_from_wire(key), asked.node_id)
        return request

    def lists(self, response: pb.ListNodesResponse) -> pb.ListNodesResponse:
        self.keys = {node.node_id: node.key for node in response.nodes}
        return response


class OwnKeys(Tricks):
    """Has hints sealed to itself, under a key that it signed."""

    def __init__(self) -> None:
        self.pair = KeyPair()
        self.sealed: list[str] = []

    def lists(self, response: pb.ListNodesResponse) -> pb.ListNodesResponse:
        for node in response.nodes:
            forged = sign_node_key(node.node_id, self.pair, Identity(certificates_of(AGGREGATOR)))
            node.key.CopyFrom(forged)
        return response

    def opens(self, request: pb.OpenSessionRequest) -> pb.OpenSessionRequest:
        self.sealed += [hint.node_id for hint in request.hints]
        return request


class SwappedHints(Tricks):
    """Gives each contributor what was sealed for another."""

    def opens(self, request: pb.OpenSessionRequest) -> pb.OpenSessionRequest:
        first, second = request.hints
        first.sealed, second.sealed = second.sealed, first.sealed
        return request


class NoHints(Tricks):
    """Keeps what contributors should be told."""

    def opens(self, request: pb.OpenSessionRequest) -> pb.OpenSessionRequest:
        request.ClearField("hints")
        return request


@pytest.mark.parametrize(
    ("tricks", "why"),
    [
        (OtherHint(), "cannot be opened"),
        (SwappedHints(), "cannot be opened"),
        (NoHints(), "nothing of it came here"),
        (OwnKeys(), "nothing of it came here"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Tricks) else "",
)
async def test_nobody_between_tells_contributors_another_question_or_reads_it(
    victims: Victims, tricks: Tricks, why: str
) -> None:
    with pytest.raises(IdentityMismatchError, match=why):
        await victims.ask(tricks, question=QUESTION, share=ALL)
    if isinstance(tricks, OwnKeys):
        assert tricks.sealed == []
        assert "bears the certificate of ['aggregator']" in victims.said("not_told")


async def test_the_publisher_names_the_passages_that_drew_the_answer(
    victims: Victims, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text(long_text("w33", "w34"))
    result = await victims.answer(Tricks(), question=QUESTION, share=ALL)
    store = victims.nodes[0].context.store
    named = [(source.node_id, source.number) for source in result.sources]
    assert {number for node, number in named if node == "a"} <= {
        passage.number for passage in store.first(9)
    }
    assert named
    assert sum(source.share for source in result.sources) == pytest.approx(1, abs=1e-4)
    assert 0 <= result.support <= 1


def test_by_default_an_owner_lets_publishers_tell_anything() -> None:
    assert set(Policy().shares) == set(Share)


async def test_nodes_that_fit_less_are_left_out_where_not_all_texts_fit(
    victims: Victims, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("w33 w50 w51 w52 w53 w54")
    (tmp_path / "b.txt").write_text("w33 w34 w35 w36 w55 w56")
    result = await victims.answer(
        Tricks(), question=QUESTION, share=ALL, context_tokens=8, node_tokens=8
    )
    assert outcomes(result.report) == {"a": "EXCLUDED", "b": "COMPLETE", "publisher": "COMPLETE"}
    assert "what others give fits better, and fills the 8 tokens asked for" in reason(
        result.report, "a"
    )
    for node in victims.nodes:
        await node.admission.wait_idle()  # who was left out waits for nothing


@pytest.mark.parametrize(("least", "expected"), [(0.0, True), (1.0, False)])
async def test_an_answer_says_whether_the_texts_support_it(
    victims: Victims, least: float, expected: bool
) -> None:
    result = await victims.answer(Tricks(), question=QUESTION, share=ALL, min_support=least)
    assert result.is_supported is expected
    assert result.HasField("support")


def test_what_is_told_hides_its_length() -> None:
    pair = KeyPair()
    sizes = {
        len(seal_hint(Hint(text="w" * size), pair.public, "publisher")) for size in range(1, 200, 7)
    }
    assert len(sizes) == 1


async def test_whom_the_policy_refuses_cannot_search_the_text(
    victims: Victims, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('publishers = ["desk"]\nlowest_block = 0\n')
    victims.nodes[0].policy = victims.nodes[0].consent.policy = PolicyFile(path)
    (tmp_path / "a.txt").write_text(long_text("w10", "w33", "w44"))
    reasons = []
    for question in ("w33", "w99"):  # one that fits a passage, one that fits none
        report = await victims.ask(Tricks(), question=question, share=ALL)
        reasons.append(reason(report, "a"))
    assert reasons[0] == reasons[1]
    assert "by the rule publishers" in reasons[0]


async def test_a_node_is_never_made_to_read_more_than_the_window(
    victims: Victims, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text(long_text(*(f"w{10 + number}" for number in range(40))))
    report = await victims.ask(Tricks(), share=NOTHING, node_tokens=1 << 20)
    a = next(one for one in report.members if one.node_id == "a")
    assert a.context.num_passages == 40
    assert 0 < a.num_passages < 6
