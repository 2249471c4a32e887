"""What a participant is made of: model, tokenizer, context. Everything slow runs in its threads."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from fedattn.core.codecs import CODECS
from fedattn.core.errors import NodeBusyError
from fedattn.core.profile import Profile
from fedattn.model.fused import FusedDecoder
from fedattn.model.prefill import Prefiller
from fedattn.model.prompt import PromptTokenizer
from fedattn.wire.convert import context_to_wire, shape_to_wire, sizes_to_wire
from fedattn.wire.protocol import PROTOCOL_VERSION
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.context import ContextTokens
from services.participant.kv_cache import CachedFrames, CachedRows, CachedState, KvCache
from services.participant.metrics import ParticipantMetrics
from services.participant.pressure import Pressure, PressureGauge

T = TypeVar("T")

_TO_WIRE = {
    Pressure.NONE: pb.PRESSURE_NONE,
    Pressure.HIGH: pb.PRESSURE_HIGH,
    Pressure.CRITICAL: pb.PRESSURE_CRITICAL,
}


@dataclass(slots=True, kw_only=True)
class ParticipantNode:
    """One node, shared by its control loop and its query servicer.

    Sessions run at the same time, each in a thread of its own: a session that waits for rows of
    another node must never keep a second one from computing, or two nodes could wait for each
    other.
    """

    node_id: str
    model_name: str
    software_version: str
    prefiller: Prefiller
    tokenizer: PromptTokenizer
    context: ContextTokens
    max_sessions: int
    num_threads: int
    pressure: PressureGauge
    frames: KvCache[CachedFrames]  # what it sent
    rows: KvCache[CachedRows]  # what it was sent as a publisher
    states: KvCache[CachedState]  # what it made of them
    rows_lifetime_s: float  # how long others may hold its rows
    make_decoder: Callable[[], FusedDecoder | None] = lambda: None  # for the first query
    profile: Profile | None = None  # what `auto` plans mean
    metrics: ParticipantMetrics = field(default_factory=ParticipantMetrics)
    prefix: tuple[int, ...] = field(init=False)
    token: str = ""  # from the aggregator, proves who opens a session
    _threads: ThreadPoolExecutor = field(init=False)
    _decoder: FusedDecoder | None = None
    _decoder_is_wanted: bool = False
    _decoder_lock: threading.Lock = field(default_factory=threading.Lock)
    _active: int = 0
    _draining: bool = False
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        # one thread a session, and as many again for tokenizing and encoding
        self._idle.set()
        self.prefix = tuple(self.tokenizer.prefix())
        self._threads = ThreadPoolExecutor(2 * self.max_sessions + 1, thread_name_prefix="model")

    @property
    def threads(self) -> ThreadPoolExecutor:
        return self._threads

    def decoder(self) -> FusedDecoder | None:
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
            self._threads.submit(self.decoder)

    @property
    def active_sessions(self) -> int:
        return self._active

    def enter(self) -> None:
        """Take a place for one more session.

        Raises:
            NodeBusyError: there is none, or the node is too hot or short of memory.
        """
        if self._draining:
            raise NodeBusyError(f"{self.node_id} is stopping; try again in a moment")
        if self._active >= self.max_sessions:
            raise NodeBusyError(
                f"{self.node_id} takes part in {self.max_sessions} sessions already; "
                f"try again later"
            )
        self.pressure.admit()
        self._active += 1
        self._idle.clear()

    def leave(self) -> None:
        """Give a place back."""
        self._active -= 1
        if self._active == 0:
            self._idle.set()

    async def drain(self) -> None:
        """Take no more sessions, and wait for those that run."""
        self._draining = True
        await self.wait_idle()

    async def wait_idle(self) -> None:
        """Wait until no session runs here."""
        await self._idle.wait()

    async def run(self, work: Callable[[], T]) -> T:
        """Run blocking work in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def compute(self, work: Callable[[], T]) -> T:
        """Run a model in a thread, on as many CPU threads as pressure allows."""
        num_threads = self.pressure.threads(self.num_threads)

        def on_threads() -> T:
            torch.set_num_threads(num_threads)  # of this thread
            return work()

        return await self.run(on_threads)

    def heartbeat(self) -> pb.Heartbeat:
        """How this node is."""
        level = self.pressure.update()
        readings = self.pressure.readings
        return pb.Heartbeat(
            active_sessions=self.active_sessions,
            health=pb.Health(
                pressure=_TO_WIRE[level],
                memory_free=readings.memory_free,
                temperature_c=readings.temperature_c or 0.0,
            ),
            context=context_to_wire(self.context.summary),
        )

    def join_message(self) -> pb.Join:
        """How this node introduces itself."""
        model = self.prefiller.model
        return pb.Join(
            protocol_version=PROTOCOL_VERSION,
            node_id=self.node_id,
            model_fingerprint=model.fingerprint,
            capabilities=pb.Capabilities(
                shape=shape_to_wire(model.shape),
                max_positions=model.max_positions,
                codec_ids=[codec.codec_id for codec in CODECS],
                sizes=sizes_to_wire(model.sizes),
                max_sessions=self.max_sessions,
                model_name=self.model_name[:200],
                software_version=self.software_version[:40],
                prefix_tokens=len(self.prefix),
            ),
            context=context_to_wire(self.context.summary),
        )

    def close(self) -> None:
        """End the threads; running work is told to stop by its session."""
        self._threads.shutdown(wait=False, cancel_futures=True)
