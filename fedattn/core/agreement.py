"""What members of a session hold against each other before a row leaves.

The aggregator lays a session out, but it is nobody's word: the publisher signs what it asks for
(`SessionRequest`), each contributor signs what it gives (`MemberStatement`), and each member holds
the terms that it is shown against both. The terms may go down to what the publisher lets a byte
budget go down to, and to what a contributor is willing to send; else they are as asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fedattn.core.budget import Rung
from fedattn.core.compression import Compression
from fedattn.core.costs import session_bytes
from fedattn.core.errors import TermsRefusedError
from fedattn.core.plans import NOWHERE
from fedattn.core.request import Exchange, PublicKey, SessionOptions, SessionRequest
from fedattn.core.reuse import rows_identity, with_cache_keys
from fedattn.core.spans import Member, PrefixMode, Role, SessionLayout
from fedattn.core.terms import SessionTerms


@dataclass(frozen=True, slots=True)
class PassageSpan:
    """One passage of a span.

    Attributes:
        number: at its node, where alone it can be looked up.
        num_tokens: of it.
    """

    number: int
    num_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatement:
    """What a contributor agrees to, and signs.

    Attributes:
        session_id: of the session it was invited to.
        request_digest: SHA-256 of the publisher's request, as it was shown to this node.
        node_id: who says so.
        span_len: tokens of its span.
        max_keep_ratio: most of its rows that it sends.
        can_score: whether it has scores to choose rows by; else it sends all where they are
            asked for (`Rung`).
        context_version: drawn at random at each change of its text; empty if its rows are not to be
            reused.
        num_withheld: rows that never travel, because its owner does not let them.
        cache_lifetime_s: how long the publisher may cache its rows; 0 for not beyond the session.
        key: what other members seal keys to; None without certificates.
        passages: what its span is made of, in order; the prefix, if it owns that, is none of them.
        fit: how well they fit what is asked, 0 to 1; 0 if that is not known.
        is_approved: whether a person approved it for this session, and that approval is spent.
        is_asked: whether its rows stay with it, and it answers the publisher's queries instead.
    """

    session_id: str
    request_digest: bytes
    node_id: str
    span_len: int
    max_keep_ratio: float = 1.0
    can_score: bool = False
    context_version: bytes = b""
    num_withheld: int = 0
    cache_lifetime_s: float = 0.0
    key: PublicKey | None = None
    passages: tuple[PassageSpan, ...] = ()
    fit: float = 0.0
    is_approved: bool = False
    is_asked: bool = False

    @property
    def text_len(self) -> int:
        """Tokens of its text."""
        return sum(one.num_tokens for one in self.passages)


def check_agreement(
    terms: SessionTerms,
    request: SessionRequest,
    request_digest: bytes,
    statements: Mapping[str, MemberStatement],
    fingerprint: str,
) -> int:
    """Hold the terms of a session against what its members have said.

    Args:
        terms: as the aggregator laid them out.
        request: of the publisher, whose signature has been verified.
        request_digest: SHA-256 of that request.
        statements: of the contributors by node id, whose signatures have been verified.
        fingerprint: of the model.

    Returns:
        Which of `request.rungs` they are on.

    Raises:
        TermsRefusedError: they go beyond the request, or differ from a statement.
    """
    layout, options = terms.layout, request.options
    is_public = request.prefix.mode is PrefixMode.PUBLIC
    _expect("the publisher", request.node_id, layout.publisher.node_id)
    _expect("the publisher's tokens", request.span_len, len(layout.publisher.span))
    _expect("public prefix", request.prefix.num_tokens if is_public else 0, layout.prefix_len)
    _expect("min_participants", options.min_participants, terms.min_participants)
    _expect("timeline", options.wants_timeline, terms.wants_timeline)
    if terms.deadline_s > options.deadline_s:
        _refuse("a deadline in seconds of at most", options.deadline_s, terms.deadline_s)
    for member in layout.members:
        _check_member(member, layout, request, statements.get(member.node_id))
    _check_named(layout, options.contributors)
    _check_required(layout, options)
    if options.budget is not None and not options.budget.allows(
        session_bytes(layout.without_reuse(), terms.shape)
    ):
        raise TermsRefusedError("the terms take more bytes than the byte budget asked for allows")
    for member in layout.contributors:
        _check_statement(member, terms, request, request_digest, statements)
    rung = _find_rung(layout, request, statements)
    _check_tokens(layout, request, statements)
    _check_reuse(layout, request, statements, fingerprint)
    return rung


def _find_rung(
    layout: SessionLayout, request: SessionRequest, statements: Mapping[str, MemberStatement]
) -> int:
    """The rung that all members are on."""
    rungs = [_on_rung(rung, layout, statements) for rung in request.rungs]
    got = [member.compression for member in layout.members]
    if got in rungs:
        return rungs.index(got)
    for index, member in enumerate(layout.members):
        allowed = [on_rung[index] for on_rung in rungs]
        if member.compression not in allowed:
            asked, got_one = allowed[0].describe(), member.compression.describe()
            _refuse(f"compression of {member.node_id}", asked, got_one)
    raise TermsRefusedError("the terms keep the byte budget by one step for some and not for all")


def _on_rung(
    rung: Rung, layout: SessionLayout, statements: Mapping[str, MemberStatement]
) -> list[Compression]:
    """Compression of every member, in token order."""
    said = (statements[member.node_id] for member in layout.contributors)
    return [
        *(
            rung.of_member(can_score=one.can_score, max_keep_ratio=one.max_keep_ratio)
            for one in said
        ),
        rung.compression,
    ]


def _check_tokens(
    layout: SessionLayout, request: SessionRequest, statements: Mapping[str, MemberStatement]
) -> None:
    """No more of all texts than was asked for."""
    most = request.options.context_tokens
    total = sum(statements[member.node_id].text_len for member in layout.contributors)
    if most is not None and total > most:
        _refuse("tokens of all texts up to", most, total)


def _check_reuse(
    layout: SessionLayout,
    request: SessionRequest,
    statements: Mapping[str, MemberStatement],
    fingerprint: str,
) -> None:
    """Rows of earlier sessions stand for those of this one if all they follow from is the same.

    Cache keys follow from what was asked for and agreed to, so nobody can name another key.
    """
    versions = [statements[one.node_id].context_version for one in layout.contributors]
    keyed = with_cache_keys(layout, rows_identity(fingerprint, request), versions)
    for member, expected in zip(layout.contributors, keyed.contributors, strict=True):
        is_cached = member.is_cached_by_owner or member.is_cached_by_publisher
        _expect(f"cache key of {member.node_id}", expected.cache_key.hex(), member.cache_key.hex())
        if is_cached and not (request.options.reuse and member.cache_key):
            raise TermsRefusedError(
                f"the terms count on cached rows of {member.node_id}, which nobody asked for"
            )


def _check_member(
    member: Member, layout: SessionLayout, request: SessionRequest, said: MemberStatement | None
) -> None:
    """At the blocks that were asked for, and placed and sealed so; asked if it says so."""
    is_publisher, plans = member.role is Role.PUBLISHER, request.plans
    is_asked = not is_publisher and said is not None and said.is_asked
    plan = plans.publisher if is_publisher else NOWHERE if is_asked else plans.contributors
    answers = plans.asked if is_asked else NOWHERE
    _expect(f"blocks at which {member.node_id} answers", str(answers), str(member.answers))
    _expect(f"sync layers of {member.node_id}", str(plan), str(member.plan))
    shift = member.span.start - layout.prefix_len
    is_shifted = is_asked or (request.options.independent and not is_publisher)
    _expect(f"position of {member.node_id}", shift if is_shifted else 0, member.position_offset)
    _expect(f"sealing of {member.node_id}", request.key is not None, member.is_sealed)


def _check_named(layout: SessionLayout, named: tuple[str, ...]) -> None:
    """Nobody takes part who was not asked for, if the request names whom; in that order."""
    got = [member.node_id for member in layout.contributors]
    if named and got != [node_id for node_id in named if node_id in got]:
        _refuse("contributors among, and in the order of", list(named), got)


def _check_required(layout: SessionLayout, options: SessionOptions) -> None:
    """All take part without whom there is no answer, and nobody who was to be left out."""
    got = [member.node_id for member in layout.members]
    if missing := [node_id for node_id in options.require if node_id not in got]:
        _refuse("members", ", ".join(options.require), f"none of {', '.join(missing)}")
    if lost := [
        member.node_id for member in layout.contributors if member.node_id in options.without
    ]:
        _refuse("members", f"none of {', '.join(options.without)}", ", ".join(lost))


def _check_statement(
    member: Member,
    terms: SessionTerms,
    request: SessionRequest,
    request_digest: bytes,
    statements: Mapping[str, MemberStatement],
) -> None:
    """A contributor gives what it says it gives, in this session, for this request."""
    name = member.node_id
    said = statements.get(name)
    if said is None:
        raise TermsRefusedError(f"the terms have {name} as a member, but not what it agreed to")
    _expect(f"session of {name}", said.session_id, terms.session_id)
    _expect(f"request shown to {name}", said.request_digest.hex(), request_digest.hex())
    _expect(f"tokens of {name}", said.span_len, len(member.span))
    owns_prefix = request.prefix.mode is PrefixMode.FIRST and member is terms.layout.members[0]
    prefix_len = request.prefix.num_tokens if owns_prefix else 0
    _expect(f"tokens of the passages of {name}", said.span_len - prefix_len, said.text_len)
    asked = request.options.node_tokens
    if asked is not None and said.text_len > asked:
        _refuse(f"tokens of the text of {name} up to", asked, said.text_len)
    _expect(f"rows that {name} withholds", said.num_withheld, member.num_withheld)
    _expect(f"a key of {name}", request.key is not None, said.key is not None)
    exchange = request.options.exchange
    if exchange is not Exchange.AUTO:
        _expect(f"exchange of {name}", exchange is Exchange.ASK, said.is_asked)
    if member.cache_lifetime_s > said.cache_lifetime_s:
        _refuse(f"seconds that {name} lets its rows be cached, up to", said.cache_lifetime_s,
                member.cache_lifetime_s)  # fmt: skip


def _expect(what: str, asked: object, got: object) -> None:
    if asked != got:
        _refuse(what, asked, got)


def _refuse(what: str, asked: object, got: object) -> None:
    raise TermsRefusedError(
        f"the terms differ from what was asked for: {what}: asked {asked}, the aggregator laid "
        f"out {got}"
    )
