"""What a publisher asks its aggregator for."""

import hashlib
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from fedattn.core.budget import ByteBudget, Rung, rungs_of
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import DEFAULT_DEADLINE_S, DEFAULT_MIN_PARTICIPANTS
from fedattn.core.plans import RolePlans
from fedattn.core.share import DIGEST_SIZE, Share
from fedattn.core.spans import PrefixMode
from fedattn.core.types import KvShape

MAX_LABEL_LENGTH = 64
LABEL_TEXT = f"up to {MAX_LABEL_LENGTH} letters, digits or ._@/+-"
NONCE_SIZE = 16
MAX_COARSER = 16
"""Compressions that a byte budget may go down to."""
_LABEL = re.compile(r"[\w.@/+-]{0,64}")


def check_label(name: str, text: str) -> str:
    """The text, if it can be a subject or a purpose.

    Raises:
        InvalidRequestError: it cannot; names what it was to be.
    """
    if not _LABEL.fullmatch(text):
        raise InvalidRequestError(f"{name}: expected {LABEL_TEXT}, got {text[:MAX_LABEL_LENGTH]!r}")
    return text


class Exchange(StrEnum):
    """How a contributor lets the publisher attend to its rows.

    ROWS: it sends them.
    ASK: they stay with it; it answers the publisher's queries (`fedattn.core.asked`).
    AUTO: as its owner's policy has it; rows if that leaves both open.
    """

    ROWS = "rows"
    ASK = "ask"
    AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What a query says about its session; every node on its way passes it on.

    Unchanged, except for the deadline: of that, what is left is passed on.

    Attributes:
        contributors: ids in token order; empty for all that are joined.
        budget: what may travel; None for no limit.
        prefix: who holds the system prompt and the chat header.
        min_participants: fewest participants, publisher included.
        deadline_s: longest time for everything, seconds.
        reuse: whether cached rows may be used.
        wants_timeline: whether members tell what they did when.
        independent: contributors compute as if each followed the public prefix alone.
        subject: who asks, as the publisher's side vouches; empty if it does not say.
        purpose: what the answer is for, in a word that owners' policies know; may be empty.
        share: what contributors are told of the question.
        node_tokens: most tokens of each contributor's text; None for no limit.
        context_tokens: most tokens of all contributors' texts together; None for no limit.
        require: contributors without all of whose rows there is no answer.
        without: nodes that take no part, since a first try lost them.
        exchange: how contributors let the publisher attend to their rows.
    """

    contributors: tuple[str, ...] = ()
    budget: ByteBudget | None = None
    prefix: PrefixMode = PrefixMode.PUBLIC
    min_participants: int = DEFAULT_MIN_PARTICIPANTS
    deadline_s: float = DEFAULT_DEADLINE_S
    reuse: bool = True
    wants_timeline: bool = False
    independent: bool = False
    subject: str = ""
    purpose: str = ""
    share: Share = Share.NOTHING
    node_tokens: int | None = None
    context_tokens: int | None = None
    require: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    exchange: Exchange = Exchange.AUTO

    def __post_init__(self) -> None:
        for name, text in (("subject", self.subject), ("purpose", self.purpose)):
            check_label(name, text)
        for node_id in self.contributors:
            if self.contributors.count(node_id) > 1:
                raise InvalidRequestError(
                    f"contributor {node_id[:64]!r} is named twice; name it once"
                )
        self._check_required()
        if self.independent and self.prefix is not PrefixMode.PUBLIC:
            raise InvalidRequestError(
                f"independent: contributors need the public prefix before them, got prefix "
                f"{self.prefix.value!r}; leave one of the two out"
            )
        if self.exchange is Exchange.ASK and self.prefix is not PrefixMode.PUBLIC:
            raise InvalidRequestError(
                f"exchange ask: contributors need the public prefix before them, got prefix "
                f"{self.prefix.value!r}; leave one of the two out"
            )

    def _check_required(self) -> None:
        """Raise InvalidRequestError if a required node is not to take part."""
        for node_id in self.require:
            if self.contributors and node_id not in self.contributors:
                raise InvalidRequestError(
                    f"{node_id[:64]!r} is required, and not among the contributors; name it there "
                    f"too, or name no contributors for all that are joined"
                )
            if node_id in self.without:
                raise InvalidRequestError(f"{node_id[:64]!r} is required, and to be left out")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicPrefix:
    """The tokens everybody knows.

    Attributes:
        mode: who holds them.
        num_tokens: how many they are.
        digest: SHA-256 of their ids; they are public, so it hides nothing.
    """

    mode: PrefixMode
    num_tokens: int
    digest: bytes


def describe_prefix(mode: PrefixMode, token_ids: Sequence[int]) -> PublicPrefix:
    """The prefix as it is told to others."""
    digest = hashlib.sha256(np.asarray(token_ids, dtype="<i8").tobytes()).digest()
    return PublicPrefix(mode=mode, num_tokens=len(token_ids), digest=digest)


class Kem(StrEnum):
    """How a key is made for the holder of a public key (RFC 9180)."""

    X25519 = "x25519"
    MLKEM768_X25519 = "mlkem768-x25519"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """What others seal keys to, made for one session by one member of it."""

    kem: Kem
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRequest:
    """What a publisher asks for, and signs: no session may go beyond it.

    Attributes:
        node_id: of the publisher.
        span_len: tokens of its span, question included.
        prefix: the public prefix.
        plans: sync plan of each role.
        compression: how rows travel.
        coarser: how they may travel instead to keep a byte budget, in this order; none without one.
        max_new_tokens: tokens it may decode, which must fit the window too.
        options: as the query says.
        nonce: random, 16 bytes; no request is good for two sessions.
        issued_at_s: when it was signed, seconds since 1970.
        key: what contributors seal keys to; None without certificates.
        hint_digest: of the `Hint` that contributors get; empty if they are told nothing.
    """

    node_id: str
    span_len: int
    prefix: PublicPrefix
    plans: RolePlans
    max_new_tokens: int
    compression: Compression = field(default_factory=Compression)
    coarser: tuple[Compression, ...] = ()
    options: SessionOptions = field(default_factory=SessionOptions)
    nonce: bytes = field(default_factory=lambda: secrets.token_bytes(NONCE_SIZE))
    issued_at_s: float = field(default_factory=time.time)
    key: PublicKey | None = None
    hint_digest: bytes = b""

    def __post_init__(self) -> None:
        expected = 0 if self.options.share is Share.NOTHING else DIGEST_SIZE
        if len(self.hint_digest) != expected:
            raise InvalidRequestError(
                f"share {self.options.share.value} goes with {expected} bytes of hint_digest, got "
                f"{len(self.hint_digest)}"
            )
        if len(self.coarser) > (0 if self.options.budget is None else MAX_COARSER):
            raise InvalidRequestError(
                f"coarser: expected up to {MAX_COARSER} compressions with a byte budget and none "
                f"without, got {len(self.coarser)}; use a profile of fewer points"
            )
        if self.options.independent and self.plans.contributors.layers:
            raise InvalidRequestError(
                "independent contributors attend to nobody; leave out their sync layers"
            )
        if self.options.exchange is Exchange.ASK and not self.plans.asked.layers:
            raise InvalidRequestError(
                "exchange ask: the plan of the publisher has no block to ask at; give it some, or "
                "leave the plan out"
            )

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """How rows may travel, best quality first; one without a byte budget."""
        if self.options.budget is None:
            return (Rung(compression=self.compression),)
        return rungs_of(self.compression, self.coarser)

    def check_shape(self, shape: KvShape) -> None:
        """Refuse to ask for rows of another model.

        Raises:
            InvalidPlanError: a sync layer is none of its blocks.
            InvalidRequestError: shares are not those of its heads.
        """
        for plan in (self.plans.contributors, self.plans.publisher, self.plans.asked):
            plan.check(shape.num_layers)
        for compression in (self.compression, *self.coarser):
            compression.check_shape(shape)

    @property
    def prefix_identity(self) -> bytes:
        """What rows follow from of the prefix."""
        return f"{self.prefix.mode.value}:{self.prefix.num_tokens}:".encode() + self.prefix.digest
