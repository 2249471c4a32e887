"""The error tree, its stable codes and its table; and how an error crosses the wire."""

import re
from collections.abc import Iterator
from typing import NoReturn

import grpc
import pytest

from fedattn.core import errors
from fedattn.core.errors import FedAttnError, InternalError, error_from_code, leaf_errors
from fedattn.wire.protocol import MAX_ERROR_LENGTH
from fedattn.wire.status import (
    CODE_KEY,
    STATUS_TABLE,
    abort_with,
    error_from_rpc,
    status_of,
)

STABLE_CODES = {
    "empty_question", "invalid_plan", "invalid_sampling", "context_too_long",
    "unknown_participant", "invalid_request", "no_contributors", "not_enough_participants",
    "participant_departed",
    "publisher_unavailable", "aggregator_unavailable", "gateway_unavailable", "node_busy",
    "deadline_exceeded", "model_mismatch", "protocol_mismatch", "prefix_mismatch",
    "duplicate_node", "malformed_frame", "corrupt_frame", "unknown_session", "session_aborted",
    "session_state", "request_stale", "terms_refused", "nothing_to_give", "context_unreadable",
    "model", "configuration", "identity_mismatch", "policy_refused", "approval_needed", "internal",
    "not_signed_in", "not_allowed", "rate_limited",
    "certificate_revoked", "authority_unavailable", "model_not_found",
    "unknown_job", "idempotency_key_reused", "jobs_unavailable", "job_lost", "job_cancelled",
}  # fmt: skip
OUR_PACKAGES = ("fedattn.", "services.", "gateway.")
LEAVES = [leaf for leaf in leaf_errors() if leaf.__module__.startswith(OUR_PACKAGES)]
each_leaf = pytest.mark.parametrize("leaf", LEAVES, ids=lambda leaf: leaf.__name__)


def drawn_tree() -> list[tuple[int, str]]:
    """(depth, class) for each line of the tree in the docstring."""
    lines = re.findall(r"^    ([│├└─ ]*)(\w+)", errors.__doc__ or "", re.MULTILINE)
    return [(len(branch) // 4, name) for branch, name in lines]


def real_tree(root: type[FedAttnError] = FedAttnError, depth: int = 0) -> Iterator[tuple[int, str]]:
    """The same, from the classes."""
    yield depth, root.__name__
    for child in root.__subclasses__():
        if child.__module__.startswith(OUR_PACKAGES):
            yield from real_tree(child, depth + 1)


class FakeContext:
    """Records how an RPC was ended."""

    def __init__(self) -> None:
        self.ended: tuple[grpc.StatusCode, str, object] | None = None

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()
    ) -> NoReturn:
        self.ended = (code, details, trailing_metadata)
        raise grpc.aio.AbortError


def rpc_error(
    code: grpc.StatusCode, details: str = "", *trailing: tuple[str, str]
) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details)


def test_drawn_tree_is_the_tree() -> None:
    assert drawn_tree() == list(real_tree())


def test_codes_are_the_published_ones_and_each_belongs_to_one_leaf() -> None:
    codes = [leaf.code for leaf in LEAVES]
    assert sorted(codes) == sorted(STABLE_CODES)


@each_leaf
def test_every_leaf_writes_its_own_code(leaf: type[FedAttnError]) -> None:
    assert "code" in vars(leaf)


def test_table_has_a_row_for_every_leaf_and_no_other() -> None:
    assert set(STATUS_TABLE) == set(LEAVES)


@each_leaf
def test_row_agrees_with_the_branch_of_its_error(leaf: type[FedAttnError]) -> None:
    row = status_of(leaf("text"))
    assert row.grpc_code is not grpc.StatusCode.OK
    if issubclass(leaf, errors.InvalidInputError | errors.IncompatibleError):
        assert 400 <= row.http_status < 500
        assert not row.is_retryable
    if issubclass(leaf, errors.UnavailableError):
        assert row.http_status in {429, 503, 504}
        assert row.is_retryable


@each_leaf
def test_error_comes_back_from_its_code(leaf: type[FedAttnError]) -> None:
    error = error_from_code(leaf.code, "what happened")
    assert type(error) is leaf
    assert str(error) == "what happened"


@pytest.mark.parametrize("code", ["", "no_such_code", "EMPTY_QUESTION"])
def test_unknown_code_becomes_an_internal_error(code: str) -> None:
    assert type(error_from_code(code, "text")) is InternalError


@each_leaf
async def test_error_crosses_the_wire_as_the_same_class(leaf: type[FedAttnError]) -> None:
    context = FakeContext()
    with pytest.raises(grpc.aio.AbortError):
        await abort_with(context, leaf("what happened"))
    assert context.ended == (
        status_of(leaf("")).grpc_code,
        "what happened",
        ((CODE_KEY, leaf.code),),
    )
    received = rpc_error(context.ended[0], "what happened", (CODE_KEY, leaf.code))
    error = error_from_rpc(received, unreachable=InternalError("not this one"))
    assert type(error) is leaf
    assert str(error) == "what happened"


async def test_long_message_is_cut_before_the_wire() -> None:
    context = FakeContext()
    with pytest.raises(grpc.aio.AbortError):
        await abort_with(context, errors.InvalidRequestError("x" * 10_000))
    assert context.ended is not None
    assert context.ended[1] == "x" * MAX_ERROR_LENGTH


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED])
def test_peer_out_of_reach_is_the_error_its_caller_names(code: grpc.StatusCode) -> None:
    unreachable = errors.AggregatorUnavailableError("aggregator at host:1 cannot be reached")
    assert error_from_rpc(rpc_error(code), unreachable) is unreachable


def test_what_tls_says_is_added_and_the_nodes_that_were_lost_are_named_still() -> None:
    unreachable = errors.PublisherUnavailableError("b is away", lost=("b",))
    failed = rpc_error(grpc.StatusCode.UNAVAILABLE, "Handshake failed")
    error = error_from_rpc(failed, unreachable)
    assert isinstance(error, errors.PublisherUnavailableError)
    assert str(error) == "b is away; TLS says: Handshake failed"
    assert error.lost == ("b",)


@pytest.mark.parametrize(
    ("code", "leaf"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceededError),
        (grpc.StatusCode.UNIMPLEMENTED, errors.ProtocolMismatchError),
        (grpc.StatusCode.UNKNOWN, InternalError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, InternalError),
    ],
)
def test_status_without_our_code_is_read_by_its_kind_and_not_quoted(
    code: grpc.StatusCode, leaf: type[FedAttnError]
) -> None:
    error = error_from_rpc(rpc_error(code, "private detail"), InternalError("not this one"))
    assert type(error) is leaf
    assert "private detail" not in str(error)
    assert str(error) != "not this one"
