"""The publisher's own tokens: what it chooses of its context, what was said, and the question."""

from dataclasses import dataclass, replace

from fedattn.core.agreement import PassageSpan
from fedattn.core.errors import ContextUnreadableError
from fedattn.core.spans import Member, Span
from fedattn.passages.choice import Wish
from services.participant.acceptance import WHOLE_BELOW
from services.participant.node import ParticipantNode
from services.participant.query import Query

_STEP = 64
"""Others learn the length of the publisher's span in steps of so many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherSpan:
    """The publisher's own tokens.

    Attributes:
        prefix: token ids of the public prefix.
        context: of what it chose of its own context.
        question: of earlier turns and the question, up to where the answer begins.
        context_version: names the tokens of `context`.
        passages: what `context` is made of, in order.
        reserved_len: tokens that others are told: no fewer than there are, and the same for every
            question of the same 64 tokens, whatever of the context fits it.
    """

    prefix: list[int]
    context: list[int]
    question: list[int]
    context_version: bytes
    passages: tuple[PassageSpan, ...] = ()
    reserved_len: int

    @property
    def token_ids(self) -> list[int]:
        return self.context + self.question

    def place(self, member: Member) -> Member:
        """The publisher as it computes: with as many tokens as there are, from where they begin."""
        start = member.span.start
        return replace(member, span=Span(start, start + len(self.token_ids)))


def read_span(
    node: ParticipantNode, query: Query, question: list[int], node_tokens: int
) -> PublisherSpan:
    """What the publisher puts in of its own.

    Args:
        node: the publisher.
        query: what is asked.
        question: its tokens, after those of earlier turns.
        node_tokens: most tokens of the publisher's own context.

    Raises:
        ContextUnreadableError: the context cannot be read.
    """
    wish = Wish(words=query.words, max_tokens=node_tokens, whole_below=WHOLE_BELOW)
    try:
        own = node.context.choose(wish)
    except ContextUnreadableError as error:
        raise ContextUnreadableError(f"publisher {node.node_id}: {error}") from None
    most = min(node_tokens, round_up(own.summary.num_tokens))
    return PublisherSpan(
        prefix=list(node.prefix),
        context=own.token_ids,
        question=question,
        context_version=own.version,
        passages=own.spans,
        reserved_len=max(most, len(own.token_ids)) + round_up(len(question)),
    )


def round_up(num_tokens: int) -> int:
    """Tokens as others learn them: the next multiple of 64."""
    return -(-num_tokens // _STEP) * _STEP
