"""What a participant is made of: model, tokenizer, context, caches, places, threads."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fedattn.core.costs import session_memory
from fedattn.core.profile import Profile
from fedattn.core.row_scores import RowScorer
from fedattn.core.spans import SessionLayout
from fedattn.model.decode import Decoder, MakeDecoder
from fedattn.model.decode_loop import DecodeLoop
from fedattn.model.prefill import Prefiller
from fedattn.model.prompt import PromptTokenizer
from fedattn.runtime.audit import AuditLog
from fedattn.wire.identity import Identity
from fedattn.wire.sealing import KeyPair
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.admission import Admission
from services.participant.consent import Consent
from services.participant.context import PrivateContext
from services.participant.kv_cache import (
    CachedAsked,
    CachedFrames,
    CachedRows,
    CachedState,
    KvCache,
)
from services.participant.memory import MemoryBudget
from services.participant.metrics import ParticipantMetrics
from services.participant.policy import PolicyFile
from services.participant.pressure import PressureGauge
from services.participant.threads import NodeThreads

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class ParticipantNode:
    """One node, shared by its control loop and its query servicer."""

    node_id: str
    identity: Identity  # signs as this node
    model_name: str
    software_version: str
    prefiller: Prefiller
    tokenizer: PromptTokenizer
    context: PrivateContext
    max_sessions: int
    num_threads: int
    pressure: PressureGauge
    memory: MemoryBudget  # of sessions and caches
    frames: KvCache[CachedFrames]  # what it sent
    rows: KvCache[CachedRows]  # what it was sent as a publisher
    states: KvCache[CachedState]  # what it made of them
    asked: KvCache[CachedAsked]  # what it is asked about
    rows_lifetime_s: float  # how long others may hold its rows
    make_decoder: MakeDecoder  # for the first query
    policy: PolicyFile  # of its owner
    audit: AuditLog | None = None  # of what it gave
    publishes: bool = False  # whether gateways may ask through it
    profile: Profile | None = None  # what `auto` means, and how it scores its rows
    profile_path: Path | None = None  # where it keeps one that it makes; None: it makes none
    metrics: ParticipantMetrics = field(default_factory=ParticipantMetrics)
    prefix: tuple[int, ...] = field(init=False)
    admission: Admission = field(init=False)
    threads: NodeThreads = field(init=False)
    decode_loop: DecodeLoop = field(init=False)
    consent: Consent = field(init=False)
    hint_keys: KeyPair | None = field(init=False)  # for what it is told of questions
    token: str = ""  # from the aggregator, proves who opens a session
    _decoder: Decoder[Any] | None = None
    _decoder_is_wanted: bool = False
    _decoder_lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.prefix = tuple(self.tokenizer.prefix())
        self.admission = Admission(self.node_id, self.max_sessions, self.pressure)
        self.threads = NodeThreads(self.max_sessions)
        self.decode_loop = DecodeLoop(
            self.prefiller.model,
            self.decoder,
            cores=self.prefiller.cores,
            num_threads=lambda: self.pressure.threads(self.num_threads),
            on_step=self.metrics.answers_a_step.observe,
        )
        self.hint_keys = KeyPair() if self.identity.is_verifying else None
        self.consent = Consent(self.policy, self.audit, self.threads)

    @property
    def scorer(self) -> RowScorer | None:
        """Scores that it chooses rows by; None if its profile has none."""
        return None if self.profile is None else self.profile.scorer

    def decoder(self) -> Decoder[Any]:
        """What a publisher decodes with, made when first asked for: packing takes a second.

        Nodes that nobody publishes through never ask, and save the memory.
        """
        with self._decoder_lock:
            if self._decoder is None:
                self._decoder = self.make_decoder()
            return self._decoder

    def prepare_decoder(self) -> None:
        """Make it in a thread, if it is not there yet."""
        if not self._decoder_is_wanted:
            self._decoder_is_wanted = True
            self.threads.pool.submit(self.decoder)

    async def compute(self, work: Callable[[], T]) -> T:
        """Run the model in a thread, on as many CPU threads as pressure allows."""
        return await self.threads.compute(work, self.pressure.threads(self.num_threads))

    def session_memory(self, layout: SessionLayout, index: int, num_new_tokens: int = 0) -> int:
        """Bytes that this node holds while a session runs, at a place in its layout."""
        model, member = self.prefiller.model, layout.members[index]
        held = session_memory(layout, model.sizes, index, num_new_tokens=num_new_tokens)
        drafts = member is layout.publisher and any(one.is_asked for one in layout.members)
        return held + model.direct_bytes if drafts else held

    def listing(self, *, with_keys: bool = False, fingerprint: str = "") -> pb.ListNodesRequest:
        """This node asks its aggregator who is joined.

        Args:
            with_keys: whether it wants what hints are sealed to.
            fingerprint: of the only model of interest; empty for all.
        """
        return pb.ListNodesRequest(
            node_id=self.node_id,
            node_token=self.token,
            with_keys=with_keys,
            model_fingerprint=fingerprint,
        )

    def close(self) -> None:
        """End the threads and the record."""
        self.decode_loop.close()
        self.threads.close()
        self.consent.close()
        self.context.close()
