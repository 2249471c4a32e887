"""How likely the model thought each token of an answer, as decoded and without the others."""

import torch

from fedattn.core.spans import Span
from fedattn.model.cache import FederatedCache
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult, forward_tokens

_ROWS_AT_ONCE = 64
"""Logits of this many tokens are in memory together; a vocabulary is large."""


def token_log_probs(
    model: LoadedModel, logits: torch.Tensor, hidden: torch.Tensor, answer: list[int]
) -> tuple[float, ...]:
    """Log-probability of each answer token by the model itself, whatever sampling did to it.

    Args:
        model: the model.
        logits: [V] before the first answer token.
        hidden: [A - 1, d] after all answer tokens but the last.
        answer: A >= 1 token ids.

    Returns:
        A numbers, nats, none above 0.
    """
    target = torch.tensor(answer, dtype=torch.int64, device=hidden.device)[:, None]
    parts = [torch.log_softmax(logits.float()[None], dim=-1).gather(1, target[:1])]
    for start in range(0, len(answer) - 1, _ROWS_AT_ONCE):
        rows = model.head(hidden[start : start + _ROWS_AT_ONCE]).float()
        wanted = target[start + 1 : start + 1 + len(rows)]
        parts.append(torch.log_softmax(rows, dim=-1).gather(1, wanted))
    return tuple(torch.cat(parts)[:, 0].tolist())


@torch.inference_mode()
def log_probs_of(
    model: LoadedModel, prefill: PrefillResult, answer: list[int]
) -> tuple[float, ...]:
    """Log-probabilities of an answer as decoded; leaves the cache as it is.

    Args:
        model: the model.
        prefill: what the answer was decoded from, before or after decoding.
        answer: A >= 1 token ids.

    Returns:
        A numbers, nats, none above 0.
    """
    start = prefill.next_position
    cache = FederatedCache(model.windows, model.device)
    cache.seed([layer.before(start) for layer in prefill.cache.layers])
    hidden = torch.empty(0, device=model.device)
    if len(answer) > 1:
        hidden = forward_tokens(model, cache, answer[:-1], range(start, start + len(answer) - 1))
    return token_log_probs(model, prefill.logits, hidden, answer)


@torch.inference_mode()
def log_probs_alone(
    model: LoadedModel,
    prefill: PrefillResult,
    own: tuple[Span, list[int]],
    answer: list[int],
    prefix_len: int,
) -> tuple[float, ...]:
    """Log-probabilities of an answer if the publisher had no rows of others; needs no network.

    Everything else stays: public prefix, own tokens, positions. So it is what the publisher would
    think of the answer in a session with the plan `none`.

    Args:
        model: the model.
        prefill: of the answer; rows of the public prefix are taken from its cache.
        own: the publisher's span, and its token ids.
        answer: A >= 1 token ids.
        prefix_len: tokens of the public prefix; 0 if the first participant owns it.

    Returns:
        A numbers, nats, none above 0.
    """
    span, token_ids = own
    if len(span) != len(token_ids) or not token_ids or not answer:
        raise ValueError(
            f"expected the {len(span)} own tokens and an answer, got {len(token_ids)} and "
            f"{len(answer)} tokens"
        )
    cache = FederatedCache(model.windows, model.device)
    cache.seed([layer.before(prefix_len) for layer in prefill.cache.layers])
    positions = range(span.start, span.stop + len(answer) - 1)
    hidden = forward_tokens(model, cache, token_ids + answer[:-1], positions)
    after = hidden[len(token_ids) - 1 :]
    return token_log_probs(model, model.head(after[:1])[0], after[1:], answer)
