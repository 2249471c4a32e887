"""What contributors claim in a session: more than was asked for, or than fits."""

from fedattn.core.errors import ContextTooLongError, FedAttnError, InvalidRequestError
from fedattn.core.request import SessionRequest
from fedattn.core.spans import PrefixMode
from services.aggregator.invitations import Acceptance


def hold_to_budget(
    request: SessionRequest, answer: Acceptance | FedAttnError
) -> Acceptance | FedAttnError:
    """The answer of a contributor, unless it wants to give more tokens than were asked for."""
    if isinstance(answer, FedAttnError):
        return answer
    most, name = request.options.node_tokens, answer.node.node_id
    if most is not None and answer.text_len > most:
        return InvalidRequestError(
            f"{name} wants to give {answer.text_len} tokens, at most {most} were asked for; "
            f"upgrade it"
        )
    prefix_len = request.prefix.num_tokens if request.prefix.mode is PrefixMode.FIRST else 0
    if answer.span_len - answer.text_len not in {0, prefix_len}:
        return InvalidRequestError(
            f"{name} has a span of {answer.span_len} tokens and passages of {answer.text_len}; "
            f"upgrade it"
        )
    return answer


def longest_claim(request: SessionRequest, accepted: list[Acceptance]) -> Acceptance | None:
    """Who claims the most tokens of those that a session can go on without."""
    if request.options.contributors:
        return None
    is_first = request.prefix.mode is PrefixMode.FIRST
    others = (one for one in accepted[is_first:] if one.node.node_id not in request.options.require)
    return max(others, key=lambda one: one.span_len, default=None)


def claims_too_much(
    one: Acceptance, accepted: list[Acceptance], error: ContextTooLongError
) -> ContextTooLongError:
    """Why the session goes on without a claim, the longest of all: at least a fair share."""
    others = sum(other.span_len for other in accepted) - one.span_len
    return ContextTooLongError(
        f"{one.node.node_id} claims {one.span_len} tokens, the most of {len(accepted)} "
        f"contributors, whose others claim {others} together, and all of it does not fit: {error}"
    )
