"""One table: error leaf -> gRPC status -> HTTP status -> whether the same request may be retried.

An error crosses the wire as its gRPC status, its message, and its stable code in trailing
metadata, and comes out on the other side as the same Python class.
"""

import asyncio
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass
from typing import NoReturn, Protocol

import grpc

from fedattn.core import errors
from fedattn.core.errors import FedAttnError, InternalError, UnavailableError, error_from_code
from fedattn.core.node_id import is_node_id
from fedattn.core.printable import short_line
from fedattn.wire.protocol import MAX_ERROR_LENGTH

CODE_KEY = "fedattn-error-code"
LOST_KEY = "fedattn-lost-nodes"
_MAX_LOST = 16
_TLS_WORDS = ("SSL", "Ssl", "TLS", "andshake", "Peer name", "erification")


@dataclass(frozen=True, slots=True)
class ErrorStatus:
    """How one error leaf shows itself at the borders."""

    grpc_code: grpc.StatusCode
    http_status: int
    is_retryable: bool


_INVALID = ErrorStatus(grpc.StatusCode.INVALID_ARGUMENT, 422, False)
_UNAVAILABLE = ErrorStatus(grpc.StatusCode.UNAVAILABLE, 503, True)
_CONFLICT = ErrorStatus(grpc.StatusCode.FAILED_PRECONDITION, 409, False)
_BAD_DATA = ErrorStatus(grpc.StatusCode.DATA_LOSS, 502, True)
_INTERNAL = ErrorStatus(grpc.StatusCode.INTERNAL, 500, False)

STATUS_TABLE: dict[type[FedAttnError], ErrorStatus] = {
    errors.EmptyQuestionError: _INVALID,
    errors.InvalidPlanError: _INVALID,
    errors.InvalidSamplingError: _INVALID,
    errors.ContextTooLongError: _INVALID,
    errors.UnknownParticipantError: ErrorStatus(grpc.StatusCode.NOT_FOUND, 404, False),
    errors.UnknownJobError: ErrorStatus(grpc.StatusCode.NOT_FOUND, 404, False),
    errors.KeyReusedError: _INVALID,
    errors.UnknownModelError: ErrorStatus(grpc.StatusCode.NOT_FOUND, 404, False),
    errors.InvalidRequestError: _INVALID,
    errors.NoContributorsError: _UNAVAILABLE,
    errors.NotEnoughParticipantsError: _UNAVAILABLE,
    errors.ParticipantDepartedError: _UNAVAILABLE,
    errors.PublisherUnavailableError: _UNAVAILABLE,
    errors.AggregatorUnavailableError: _UNAVAILABLE,
    errors.GatewayUnavailableError: _UNAVAILABLE,
    errors.AuthorityUnavailableError: _UNAVAILABLE,
    errors.JobsUnavailableError: _UNAVAILABLE,
    errors.JobLostError: _UNAVAILABLE,
    errors.NodeBusyError: ErrorStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, True),
    errors.RateLimitedError: ErrorStatus(grpc.StatusCode.RESOURCE_EXHAUSTED, 429, True),
    errors.DeadlineExceededError: ErrorStatus(grpc.StatusCode.DEADLINE_EXCEEDED, 504, True),
    errors.ModelMismatchError: _CONFLICT,
    errors.ProtocolMismatchError: _CONFLICT,
    errors.PrefixMismatchError: _CONFLICT,
    errors.DuplicateNodeError: ErrorStatus(grpc.StatusCode.ALREADY_EXISTS, 409, False),
    errors.IdentityMismatchError: ErrorStatus(grpc.StatusCode.PERMISSION_DENIED, 409, False),
    errors.CertificateRevokedError: ErrorStatus(grpc.StatusCode.PERMISSION_DENIED, 403, False),
    errors.NothingToGiveError: _CONFLICT,
    errors.ContextUnreadableError: _CONFLICT,
    errors.NotSignedInError: ErrorStatus(grpc.StatusCode.UNAUTHENTICATED, 401, False),
    errors.NotAllowedError: ErrorStatus(grpc.StatusCode.PERMISSION_DENIED, 403, False),
    errors.PolicyRefusedError: ErrorStatus(grpc.StatusCode.PERMISSION_DENIED, 403, False),
    errors.ApprovalNeededError: _CONFLICT,
    errors.MalformedFrameError: _BAD_DATA,
    errors.CorruptFrameError: _BAD_DATA,
    errors.UnknownSessionError: ErrorStatus(grpc.StatusCode.NOT_FOUND, 404, False),
    errors.SessionAbortedError: ErrorStatus(grpc.StatusCode.ABORTED, 502, True),
    errors.SessionStateError: _CONFLICT,
    errors.JobCancelledError: _CONFLICT,
    errors.RequestStaleError: _CONFLICT,
    errors.TermsRefusedError: ErrorStatus(grpc.StatusCode.FAILED_PRECONDITION, 502, False),
    errors.ModelError: _INTERNAL,
    errors.ConfigurationError: _INTERNAL,
    errors.InternalError: _INTERNAL,
}


def status_of(error: FedAttnError) -> ErrorStatus:
    """The row of an error's leaf."""
    return STATUS_TABLE[type(error)]


class _Aborts(Protocol):
    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: object = ()
    ) -> NoReturn: ...


async def abort_with(context: _Aborts, error: FedAttnError) -> NoReturn:
    """End an RPC with an error's status, message and code."""
    message = str(error)[:MAX_ERROR_LENGTH]
    metadata = [(CODE_KEY, error.code)]
    if isinstance(error, UnavailableError) and error.lost:
        metadata.append((LOST_KEY, ",".join(error.lost[:_MAX_LOST])))
    await context.abort(status_of(error).grpc_code, message, tuple(metadata))


def raise_if_cancelled() -> None:
    """Raise CancelledError if the current task has been cancelled.

    grpc.aio may answer a cancellation with any status or with the plain end of a stream: whoever
    goes on after a failed or ended call must look here first, or it goes on for ever.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        return
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def error_from_rpc(error: grpc.aio.AioRpcError, unreachable: FedAttnError) -> FedAttnError:
    """What a failed RPC means to its caller.

    Args:
        error: as raised by a stub.
        unreachable: returned if the peer could not be reached, so that it names the peer.

    Raises:
        CancelledError: the call failed because its caller is being cancelled.
    """
    raise_if_cancelled()
    details = short_line(error.details() or "", MAX_ERROR_LENGTH)
    metadata: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    told = {key: value for key, value in metadata if isinstance(value, str)}
    if CODE_KEY in told:
        known = error_from_code(told[CODE_KEY], details)
        if isinstance(known, UnavailableError):
            known.lost = _node_ids(told.get(LOST_KEY, ""))
        return known
    match error.code():
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            if any(word in details for word in _TLS_WORDS):
                return _with_reason(unreachable, f"TLS says: {details[:200]}")
            return unreachable
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.DeadlineExceededError(
                "the deadline passed; allow more time, or look for the node that is late"
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return errors.ProtocolMismatchError(
                "the peer does not offer this call; upgrade the older node"
            )
    return InternalError("the peer failed; see its log")


def _with_reason(error: FedAttnError, reason: str) -> FedAttnError:
    """The same error with more to say, and with all that it carries."""
    longer = copy(error)
    longer.args = (f"{error}; {reason}",)
    return longer


def _node_ids(text: str) -> tuple[str, ...]:
    return tuple(filter(is_node_id, text.split(",")[:_MAX_LOST]))
