"""What every member did when, over gRPC."""

from pathlib import Path

from fedattn.wire.v1 import participant_pb2 as pb
from fedattn.wire.v1 import session_pb2
from tests.harness.networks import ask, running_network
from tests.harness.tiny import tiny_model

COMPUTE = session_pb2.ACTIVITY_COMPUTE


async def report(folder: Path, *, timeline: bool) -> pb.QueryResult:
    async with running_network(tiny_model("llama"), folder, is_sealed=True) as network:
        return (await ask(network, plan="1,3", timeline=timeline))[-1].result


def layers(member: session_pb2.MemberReport, activity: int) -> list[int]:
    return sorted(piece.layer for piece in member.timeline if piece.activity == activity)


async def test_every_member_tells_its_layers_in_order(tmp_path: Path) -> None:
    result = await report(tmp_path, timeline=True)
    first, second, publisher = result.report.members
    assert layers(first, session_pb2.ACTIVITY_ENCODE) == [1, 3]
    assert layers(first, session_pb2.ACTIVITY_SEND) == [1, 3]
    assert layers(second, session_pb2.ACTIVITY_DECODE) == [1]
    assert layers(publisher, session_pb2.ACTIVITY_DECODE) == [1, 3]
    assert layers(publisher, session_pb2.ACTIVITY_ENCODE) == []
    assert layers(publisher, session_pb2.ACTIVITY_OPEN) == [0]
    assert layers(publisher, session_pb2.ACTIVITY_GENERATE) == [0]
    for member in result.report.members:
        begins = [piece.begin_s for piece in member.timeline if piece.activity == COMPUTE]
        assert begins == sorted(begins)
        assert begins[0] > 0


async def test_nobody_tells_unasked(tmp_path: Path) -> None:
    result = await report(tmp_path, timeline=False)
    assert [len(member.timeline) for member in result.report.members] == [0, 0, 0]
