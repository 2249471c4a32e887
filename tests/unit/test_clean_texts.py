"""What other nodes say comes in as short lines of printable text."""

import pytest

from fedattn.wire.protocol import MAX_TEXT_LENGTH
from fedattn.wire.texts import clean_texts
from fedattn.wire.v1 import aggregator_pb2 as pb
from fedattn.wire.v1 import session_pb2

EVIL = "ok\n\x1b[2Jnode=b \u202edaol\u2028x"
CLEAN = "ok \\x1b[2Jnode=b \\u202edaol x"


@pytest.mark.parametrize(
    "message",
    [
        pb.ControlRequest(join=pb.Join(capabilities=pb.Capabilities(model_name=EVIL))),
        pb.ControlRequest(invite_reply=pb.InviteReply(decline=pb.Decline(message=EVIL))),
        pb.ExchangeRequest(done=pb.MemberDone(late=[pb.LateMember(reason=EVIL)])),
        pb.ExchangeResponse(lost=pb.MemberLost(reason=EVIL)),
        pb.ExchangeResponse(
            report=session_pb2.SessionReport(members=[session_pb2.MemberReport(detail=EVIL)])
        ),
        pb.ControlResponse(cancel=pb.SessionCancel(session_id=EVIL)),
        pb.ListNodesResponse(nodes=[pb.NodeInfo(warnings=["fine", EVIL])]),
    ],
    ids=lambda message: f"{type(message).__name__}.{message.ListFields()[0][0].name}",
)
def test_no_text_can_forge_a_line_or_command_a_terminal(message: pb.ControlRequest) -> None:
    expected = str(message)
    assert expected != str(clean_texts(message))
    said = str(message)
    assert "fine" not in expected or "fine" in said
    assert CLEAN in said.replace("\\\\", "\\")


def test_long_text_is_cut() -> None:
    message = pb.SessionCancel(reason="x" * 10_000)
    assert clean_texts(message).reason == "x" * MAX_TEXT_LENGTH


def test_plain_text_and_bytes_stay_as_they_are() -> None:
    message = pb.ExchangeRequest(chunk=pb.KvChunk(layer=3, data=b"\x1b\n"))
    before = message.SerializeToString()
    assert clean_texts(message).SerializeToString() == before
    hello = pb.Hello(session_id="0" * 32, member_token="f" * 32)
    assert clean_texts(hello) == pb.Hello(session_id="0" * 32, member_token="f" * 32)
