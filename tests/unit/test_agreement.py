"""Terms against what was asked for and agreed to: less is fine, more is not."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from fedattn.core.agreement import MemberStatement, PassageSpan, check_agreement
from fedattn.core.budget import ByteBudget, Rung
from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidRequestError, TermsRefusedError
from fedattn.core.plans import RolePlans, SyncPlan
from fedattn.core.request import SessionOptions, SessionRequest, describe_prefix
from fedattn.core.reuse import rows_identity, with_cache_keys
from fedattn.core.selection import LEARNED
from fedattn.core.spans import Member, PrefixMode, SessionLayout, build_layout
from fedattn.core.terms import SessionTerms
from fedattn.core.types import KvShape

SHAPE = KvShape(num_layers=6, num_kv_heads=2, head_dim=8)
DIGEST = bytes(32)
FINGERPRINT = "f" * 64
PLANS = RolePlans(contributors=SyncPlan((1, 2)), publisher=SyncPlan((1, 2, 3)))
OPTIONS = SessionOptions(deadline_s=10)
HALF = Compression(codec=codec_by_name("bf16"), keep_ratio=0.5)
SCORED = Compression(
    codec=codec_by_name("int8"), keep_ratio=0.5, selector=LEARNED, head_shares=bytes([127] * 12)
)
REQUEST = SessionRequest(
    node_id="publisher",
    span_len=3,
    prefix=describe_prefix(PrefixMode.PUBLIC, [1, 2]),
    plans=PLANS,
    max_new_tokens=1,
    compression=HALF,
    options=OPTIONS,
)


def layout_for(request: SessionRequest) -> SessionLayout:
    return build_layout(
        num_layers=SHAPE.num_layers,
        prefix_len=2,
        contributors=[("a", 8), ("b", 6)],
        publisher=("publisher", 3),
        plans=request.plans,
        compression=request.compression,
        independent=request.options.independent,
    )


def terms_for(layout: SessionLayout, request: SessionRequest = REQUEST) -> SessionTerms:
    versions = [name.encode() * 16 for name in ("a", "b")]
    layout = with_cache_keys(layout, rows_identity(FINGERPRINT, request), versions)
    return SessionTerms(
        session_id="s",
        layout=layout,
        shape=SHAPE,
        deadline_s=10,
        progress_timeout_s=1,
        min_participants=2,
    )


def statements() -> dict[str, MemberStatement]:
    return {
        name: MemberStatement(
            session_id="s",
            request_digest=DIGEST,
            node_id=name,
            span_len=length,
            max_keep_ratio=0.5,
            context_version=name.encode() * 16,
            passages=(PassageSpan(1, length - 2), PassageSpan(4, 2)),
        )
        for name, length in (("a", 8), ("b", 6))
    }


def check(terms: SessionTerms, request: SessionRequest = REQUEST) -> int:
    return check_agreement(terms, request, DIGEST, statements(), FINGERPRINT)


def on_rung(rung: Rung, request: SessionRequest, said: dict[str, MemberStatement]) -> SessionLayout:
    layout = layout_for(request)
    contributors = (
        replace(
            member,
            compression=rung.of_member(
                can_score=said[member.node_id].can_score,
                max_keep_ratio=said[member.node_id].max_keep_ratio,
            ),
        )
        for member in layout.contributors
    )
    publisher = replace(layout.publisher, compression=rung.compression)
    return replace(layout, members=(*contributors, publisher))


def test_what_was_asked_for_is_taken() -> None:
    check(terms_for(layout_for(REQUEST)))


def test_terms_may_be_on_any_rung_of_the_request_and_it_is_told_which() -> None:
    budget = ByteBudget(kv_bytes=1 << 20)
    coarser = (SCORED, SCORED.at_most(0.1))
    request = replace(REQUEST, coarser=coarser, options=replace(OPTIONS, budget=budget))
    said = statements()
    said["a"] = replace(said["a"], can_score=True, max_keep_ratio=0.3)
    said["b"] = replace(said["b"], max_keep_ratio=1.0)
    for number, rung in enumerate(request.rungs):
        terms = terms_for(on_rung(rung, request, said), request)
        assert check_agreement(terms, request, DIGEST, said, FINGERPRINT) == number
    first, second = (on_rung(rung, request, said) for rung in request.rungs[1:3])
    mixed = replace(first, members=(first.members[0], *second.members[1:]))
    with pytest.raises(TermsRefusedError, match="one step for some and not for all"):
        check_agreement(terms_for(mixed, request), request, DIGEST, said, FINGERPRINT)


def test_who_says_it_can_score_is_not_made_to_send_all_rows() -> None:
    request = replace(REQUEST, compression=SCORED)
    said = {name: replace(one, can_score=True) for name, one in statements().items()}
    unscored = {name: replace(one, max_keep_ratio=1.0) for name, one in statements().items()}
    terms = terms_for(on_rung(request.rungs[0], request, unscored), request)
    assert check_agreement(terms, request, DIGEST, unscored, FINGERPRINT) == 0
    with pytest.raises(TermsRefusedError, match="compression of a"):
        check_agreement(terms, request, DIGEST, said, FINGERPRINT)


def test_coarser_rows_need_a_byte_budget() -> None:
    with pytest.raises(InvalidRequestError, match="up to 16 compressions with a byte budget"):
        replace(REQUEST, coarser=(HALF,))


def with_first(**changes: object) -> Callable[[SessionTerms], SessionTerms]:
    """Changes the first member."""

    def change(terms: SessionTerms) -> SessionTerms:
        first, *others = terms.layout.members
        members: tuple[Member, ...] = (replace(first, **changes), *others)  # type: ignore[arg-type]
        return replace(terms, layout=replace(terms.layout, members=members))

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (with_first(plan=SyncPlan((1, 2, 4))), "sync layers of a: asked 1-2, .* out 1-2,4"),
        (
            with_first(compression=replace(HALF, keep_ratio=0.6)),
            "compression of a: asked .*bf16.*0.5.* laid out .*0.6",
        ),
        (
            with_first(compression=replace(HALF, codec=codec_by_name("fp32"))),
            "compression of a: asked .*bf16.* laid out .*fp32",
        ),
        (
            with_first(compression=replace(HALF, codec=codec_by_name("int4"))),
            "compression of a: asked .*bf16.* laid out .*int4",
        ),
        (with_first(compression=replace(HALF, seed=7)), "compression of a"),
        (with_first(node_id="c"), "have c as a member, but not what it agreed to"),
        (with_first(cache_lifetime_s=1.0), "lets its rows be cached"),
        (with_first(num_withheld=1), "rows that a withholds: asked 0"),
        (with_first(cache_key=b"another" * 4), "cache key of a"),
        (with_first(is_sealed=True), "sealing of a: asked False"),
        (lambda terms: replace(terms, deadline_s=11), "a deadline in seconds of at most: asked 10"),
        (lambda terms: replace(terms, min_participants=1), "min_participants: asked 2"),
        (lambda terms: replace(terms, wants_timeline=True), "timeline: asked False"),
        (lambda terms: replace(terms, session_id="t"), "session of a: asked s"),
    ],
)
def test_more_than_was_asked_for_is_refused(
    change: Callable[[SessionTerms], SessionTerms], complaint: str
) -> None:
    with pytest.raises(TermsRefusedError, match=complaint):
        check(change(terms_for(layout_for(REQUEST))))


@pytest.mark.parametrize("named", [("b", "a"), ("a",), ("c", "d")])
def test_contributors_that_were_not_named_so_are_refused(named: tuple[str, ...]) -> None:
    request = replace(REQUEST, options=replace(OPTIONS, contributors=named))
    with pytest.raises(TermsRefusedError, match="contributors among, and in the order of"):
        check(terms_for(layout_for(REQUEST)), request)


@pytest.mark.parametrize("changes", [{"require": ("a", "ghost")}, {"without": ("b",)}])
def test_whom_the_query_requires_takes_part_and_whom_it_leaves_out_does_not(
    changes: dict[str, tuple[str, ...]],
) -> None:
    request = replace(REQUEST, options=replace(OPTIONS, **changes))  # type: ignore[arg-type]
    with pytest.raises(TermsRefusedError, match=r"ghost|none of b"):
        check(terms_for(layout_for(REQUEST)), request)


def test_named_one_that_takes_no_part_is_no_matter() -> None:
    request = replace(REQUEST, options=replace(OPTIONS, contributors=("c", "a", "b")))
    check(terms_for(layout_for(REQUEST)), request)


def test_more_bytes_than_the_budget_are_refused() -> None:
    budget = ByteBudget(kv_bytes=10)
    request = replace(REQUEST, options=replace(OPTIONS, budget=budget))
    with pytest.raises(TermsRefusedError, match="more bytes than the byte budget"):
        check(terms_for(layout_for(REQUEST)), request)


def test_contributors_that_are_to_be_independent_are() -> None:
    plans = RolePlans(contributors=SyncPlan(()), publisher=SyncPlan((1,)))
    request = replace(REQUEST, plans=plans, options=replace(OPTIONS, independent=True))
    check(terms_for(layout_for(request), request), request)
    dependent = layout_for(replace(request, options=OPTIONS))
    with pytest.raises(TermsRefusedError, match="position of b: asked 8"):
        check(terms_for(dependent), request)


def test_statement_for_another_request_is_refused() -> None:
    with pytest.raises(TermsRefusedError, match="request shown to a"):
        check_agreement(
            terms_for(layout_for(REQUEST)), REQUEST, b"1" * 32, statements(), FINGERPRINT
        )


@pytest.mark.parametrize("flag", ["is_cached_by_owner", "is_cached_by_publisher"])
def test_cached_rows_are_used_if_asked_for_alone(flag: str) -> None:
    cached = with_first(**{flag: True})
    check(cached(terms_for(layout_for(REQUEST))))
    afresh = replace(REQUEST, options=replace(OPTIONS, reuse=False))
    with pytest.raises(TermsRefusedError, match="cached rows of a, which nobody asked for"):
        check(cached(terms_for(layout_for(afresh), afresh)), afresh)


def test_rows_of_an_earlier_text_do_not_stand_for_those_of_a_later_one() -> None:
    terms = terms_for(layout_for(REQUEST))
    said = statements()
    said["a"] = replace(said["a"], context_version=b"changed" * 2)
    with pytest.raises(TermsRefusedError, match="cache key of a"):
        check_agreement(terms, REQUEST, DIGEST, said, FINGERPRINT)


def test_rows_of_one_member_do_not_stand_for_those_of_another() -> None:
    terms = terms_for(layout_for(REQUEST))
    own = terms.layout.members[1].cache_key
    with pytest.raises(TermsRefusedError, match="cache key of a"):
        check(with_first(cache_key=own, is_cached_by_publisher=True)(terms))
