"""Which rows need not be computed or sent again.

Attention is causal and the publisher comes last, so a contributor's rows follow from the contexts
before it and its own, whatever is asked. A *cache key* names everything they follow from: the
model, the public prefix, and for each member up to this one its context's version, span, plan and
compression. Versions are random, drawn afresh whenever a text changes; no hash of a text leaves its
node. Equal keys, equal rows. Rows of an independent contributor, which computes right behind the
public prefix and attends to nobody, follow from its own context alone. Example, contexts a b c, and
b changes:

    a     key unchanged: held by the publisher, nothing to do but to send kept frames to b and c
    b, c  new keys: computed and sent again; c keeps its key if they are independent
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from fedattn.core.request import SessionRequest
from fedattn.core.routing import route_session
from fedattn.core.spans import Member, SessionLayout

MAX_VERSION_SIZE = 32


def rows_identity(fingerprint: str, request: SessionRequest) -> bytes:
    """What all rows of a session follow from, besides the texts: model and public prefix."""
    return b":".join((fingerprint.encode(), request.prefix_identity))


def asked_key(request: SessionRequest, version: bytes, member: Member) -> bytes:
    """Names all that the rows of a contributor that is asked follow from; for itself alone.

    Args:
        request: of the session.
        version: of its text; none if nothing is to be reused, and then there is no key.
        member: the contributor.
    """
    if not version:
        return b""
    digest = hashlib.sha256()
    _add(digest, request.prefix_identity, version, _layers(member.answers.layers))
    _add(digest, repr(member.compression.plain).encode(), b"%d" % member.num_withheld)
    return digest.digest()


def with_cache_keys(
    layout: SessionLayout, identity: bytes, versions: Sequence[bytes]
) -> SessionLayout:
    """The session with the cache key of every contributor, 32 bytes each or none.

    Args:
        layout: the session; what is cached already does not matter.
        identity: of model and public prefix.
        versions: of the contributors' contexts, in token order; empty for one that is not to be
            reused. Those after it get no key either, unless they are independent.
    """
    cold = layout.without_reuse()
    begin = hashlib.sha256()
    _add(begin, identity, _layers(layout.publisher.plan.layers))
    chain = begin.copy()
    keys: list[bytes] = []
    known = True
    routes = route_session(cold)[:-1]
    for member, version, route in zip(cold.contributors, versions, routes, strict=True):
        if member.is_asked:  # its rows reach nobody, and so nobody's follow from them
            keys.append(b"")
            continue
        known = known and bool(version)
        parts = _parts(member, version)
        _add(chain, *parts)
        is_independent = not member.plan.layers and member.computed_span.start == layout.prefix_len
        own = begin.copy() if is_independent else chain.copy()
        if is_independent:
            _add(own, *parts)
        own.update(_layers(sorted(route.uploads)))
        keys.append(own.digest() if (version if is_independent else known) else b"")
    contributors = tuple(
        replace(member, cache_key=key)
        for member, key in zip(layout.contributors, keys, strict=True)
    )
    return replace(layout, members=(*contributors, layout.publisher))


def _parts(member: Member, version: bytes) -> tuple[bytes, ...]:
    return (
        member.node_id.encode(),
        version,
        b"%d:%d" % (member.computed_span.start, member.computed_span.stop),
        _layers(member.plan.layers),
        repr(member.compression.plain).encode(),
        b"%d" % member.num_withheld,
    )


def _add(digest: "hashlib._Hash", *parts: bytes) -> None:
    for part in parts:
        digest.update(len(part).to_bytes(4, "little") + part)


def _layers(layers: Sequence[int]) -> bytes:
    return ",".join(map(str, layers)).encode()
