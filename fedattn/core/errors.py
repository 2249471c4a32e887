"""The error tree of the whole system.

    FedAttnError
    ├── InvalidInputError            the caller must change the request
    │   ├── EmptyQuestionError
    │   ├── InvalidPlanError
    │   ├── InvalidSamplingError
    │   ├── ContextTooLongError
    │   ├── UnknownParticipantError
    │   ├── UnknownJobError
    │   ├── KeyReusedError
    │   ├── UnknownModelError
    │   └── InvalidRequestError
    ├── UnavailableError             the same request may succeed later
    │   ├── NoContributorsError
    │   ├── NotEnoughParticipantsError
    │   ├── ParticipantDepartedError  a named node was here within the last hour
    │   ├── PublisherUnavailableError
    │   ├── AggregatorUnavailableError
    │   ├── GatewayUnavailableError
    │   ├── AuthorityUnavailableError
    │   ├── JobsUnavailableError
    │   ├── JobLostError
    │   ├── NodeBusyError
    │   ├── RateLimitedError
    │   └── DeadlineExceededError
    ├── IncompatibleError            two nodes do not fit each other
    │   ├── ModelMismatchError
    │   ├── ProtocolMismatchError
    │   ├── PrefixMismatchError
    │   ├── DuplicateNodeError
    │   ├── IdentityMismatchError
    │   └── CertificateRevokedError
    ├── ContextError                 a node's private text is not there as it should be
    │   ├── NothingToGiveError
    │   └── ContextUnreadableError
    ├── AccessError                  a gateway does not let the caller in, or not there
    │   ├── NotSignedInError
    │   └── NotAllowedError
    ├── ConsentError                 a node's owner does not let it take part
    │   ├── PolicyRefusedError
    │   └── ApprovalNeededError
    ├── FrameError                   bytes from the wire are not what they claim to be
    │   ├── MalformedFrameError
    │   └── CorruptFrameError
    ├── SessionError
    │   ├── UnknownSessionError
    │   ├── SessionAbortedError
    │   ├── SessionStateError
    │   ├── JobCancelledError
    │   ├── RequestStaleError         a signed request is shown again, or a clock is wrong
    │   └── TermsRefusedError         the aggregator laid out what nobody asked for
    ├── ModelError                   a model cannot be had, or what it gives are no numbers
    ├── ConfigurationError           settings or machine set-up
    └── InternalError                a defect; details are in the log of the node that raised it

Every leaf carries a stable `code`, which the wire and the REST API pass on unchanged.
Messages say what was expected, what was found and what to do; they never contain private text.
"""

from typing import ClassVar


class FedAttnError(Exception):
    """Base of every error this project raises on purpose."""

    code: ClassVar[str] = "internal"


class InvalidInputError(FedAttnError):
    """The caller must change the request."""


class EmptyQuestionError(InvalidInputError):
    code = "empty_question"


class InvalidPlanError(InvalidInputError):
    code = "invalid_plan"


class InvalidSamplingError(InvalidInputError):
    code = "invalid_sampling"


class ContextTooLongError(InvalidInputError):
    code = "context_too_long"


class UnknownParticipantError(InvalidInputError):
    code = "unknown_participant"


class UnknownJobError(InvalidInputError):
    code = "unknown_job"


class KeyReusedError(InvalidInputError):
    """An idempotency key came with another body than before."""

    code = "idempotency_key_reused"


class UnknownModelError(InvalidInputError):
    code = "model_not_found"  # as OpenAI's API calls it


class InvalidRequestError(InvalidInputError):
    code = "invalid_request"


class UnavailableError(FedAttnError):
    """The same request may succeed later.

    Args:
        message: for people.
        retry_after_s: when that may be; None if nobody knows.
        lost: ids of the nodes without which it may succeed at once.
    """

    def __init__(
        self,
        message: str = "",
        retry_after_s: float | None = None,
        *,
        lost: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.lost = lost


class NoContributorsError(UnavailableError):
    code = "no_contributors"


class NotEnoughParticipantsError(UnavailableError):
    code = "not_enough_participants"


class ParticipantDepartedError(UnavailableError):
    """A named node was joined within the last hour, and left."""

    code = "participant_departed"


class PublisherUnavailableError(UnavailableError):
    code = "publisher_unavailable"


class AggregatorUnavailableError(UnavailableError):
    code = "aggregator_unavailable"


class GatewayUnavailableError(UnavailableError):
    code = "gateway_unavailable"


class AuthorityUnavailableError(UnavailableError):
    code = "authority_unavailable"


class JobsUnavailableError(UnavailableError):
    """The gateway cannot read or write the jobs it keeps."""

    code = "jobs_unavailable"


class JobLostError(UnavailableError):
    code = "job_lost"


class NodeBusyError(UnavailableError):
    code = "node_busy"


class RateLimitedError(UnavailableError):
    """A caller has had its share."""

    code = "rate_limited"


class DeadlineExceededError(UnavailableError):
    code = "deadline_exceeded"


class IncompatibleError(FedAttnError):
    """Two nodes do not fit each other."""


class ModelMismatchError(IncompatibleError):
    code = "model_mismatch"


class ProtocolMismatchError(IncompatibleError):
    code = "protocol_mismatch"


class PrefixMismatchError(IncompatibleError):
    code = "prefix_mismatch"


class DuplicateNodeError(IncompatibleError):
    code = "duplicate_node"


class IdentityMismatchError(IncompatibleError):
    code = "identity_mismatch"


class CertificateRevokedError(IncompatibleError):
    code = "certificate_revoked"


class ContextError(FedAttnError):
    """A node's private text is not there as it should be; its owner has to look."""


class NothingToGiveError(ContextError):
    code = "nothing_to_give"


class ContextUnreadableError(ContextError):
    code = "context_unreadable"


class AccessError(FedAttnError):
    """A gateway does not let the caller in, or not there."""


class NotSignedInError(AccessError):
    code = "not_signed_in"


class NotAllowedError(AccessError):
    code = "not_allowed"


class ConsentError(FedAttnError):
    """A node's owner does not let it take part; others cannot change that."""


class PolicyRefusedError(ConsentError):
    code = "policy_refused"


class ApprovalNeededError(ConsentError):
    code = "approval_needed"


class FrameError(FedAttnError):
    """Bytes from the wire are not what they claim to be."""


class MalformedFrameError(FrameError):
    code = "malformed_frame"


class CorruptFrameError(FrameError):
    code = "corrupt_frame"


class SessionError(FedAttnError):
    """A session cannot go on."""


class UnknownSessionError(SessionError):
    code = "unknown_session"


class SessionAbortedError(SessionError):
    code = "session_aborted"


class SessionStateError(SessionError):
    code = "session_state"


class JobCancelledError(SessionError):
    code = "job_cancelled"


class RequestStaleError(SessionError):
    code = "request_stale"


class TermsRefusedError(SessionError):
    code = "terms_refused"


class ModelError(FedAttnError):
    """A model cannot be found, converted or loaded, or what it computes are no numbers."""

    code = "model"


class ConfigurationError(FedAttnError):
    code = "configuration"


class InternalError(FedAttnError):
    code = "internal"


def leaf_errors(root: type[FedAttnError] = FedAttnError) -> tuple[type[FedAttnError], ...]:
    """All leaves of the tree, in order of definition."""
    children = root.__subclasses__()
    if not children:
        return (root,)
    return tuple(leaf for child in children for leaf in leaf_errors(child))


def error_from_code(code: str, message: str) -> FedAttnError:
    """The error a stable code stands for; InternalError for a code not known here."""
    by_code = {leaf.code: leaf for leaf in leaf_errors()}
    return by_code.get(code, InternalError)(message)
