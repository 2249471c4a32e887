"""Composition of a participant: the one place where its parts meet."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import structlog
import torch

from fedattn import __version__
from fedattn.core.profile import Profile
from fedattn.model.engine import Engine, open_engine
from fedattn.model.placement import (
    choose_decoder,
    choose_device,
    choose_weights,
    decoder_bytes,
)
from fedattn.model.prepare import prepare_model
from fedattn.passages.store import PassageStore
from fedattn.passages.watching import keep_fresh
from fedattn.profiles import KEPT_PROFILE, kept_profile, load_profile, shipped_profile
from fedattn.runtime.allocator import give_back, share_arenas
from fedattn.runtime.approvals import ApprovalStore
from fedattn.runtime.audit import AuditLog
from fedattn.runtime.background import keep_running
from fedattn.runtime.state import AUDIT_FILE, PASSAGES_FILE, make_state_dir
from fedattn.runtime.supervision import notify_ready
from fedattn.wire.aggregators import Aggregators
from fedattn.wire.certificate_keeper import keep_certificates
from fedattn.wire.identity import Identity
from fedattn.wire.security import OwnCertificates
from fedattn.wire.v1 import participant_pb2_grpc
from services.participant.approvals import ApprovalGate
from services.participant.background import look_after
from services.participant.calibrating import calibrate_in_background
from services.participant.context import PrivateContext
from services.participant.context_log import ContextLog
from services.participant.contributor import Contributor
from services.participant.control import ControlLoop
from services.participant.door import Door
from services.participant.kv_cache import KvCache
from services.participant.machine import memory_limit, own_bytes, usable_cpus
from services.participant.memory import MemoryBudget, room_beside
from services.participant.node import ParticipantNode
from services.participant.policy import PolicyFile
from services.participant.pressure import PressureGauge, PressureLimits
from services.participant.servicer import ParticipantServicer
from services.participant.settings import ParticipantSettings
from services.participant.warming import keep_warm

log = structlog.get_logger(__name__)

_GOODBYE_S = 1.0
"""Longest wait for the aggregator to take this node's goodbye."""

_MOST_FRAMES, _MOST_ROWS = 64 << 20, 256 << 20
"""Bytes that a cache of frames, or of rows of any kind, holds, however much memory there is."""


def build_node(
    settings: ParticipantSettings, certificates: OwnCertificates | None = None
) -> ParticipantNode:
    """Load the model, read the context, compute the public prefix. Blocks for seconds.

    Raises:
        ModelError: the model cannot be prepared.
        ConfigurationError: a setting does not fit this machine.
    """
    state = make_state_dir(settings.state_dir)
    share_arenas()
    num_threads = settings.threads or usable_cpus()
    torch.set_num_threads(num_threads)
    device = choose_device(settings.device)
    log.info("model", step=f"loading {settings.model}")
    prepared = prepare_model(settings.model, progress=lambda step: log.info("model", step=step))
    weights = choose_weights(settings.weights, prepared, device)
    engine = open_engine(prepared, settings.system_prompt, weights=weights.name, device=device)
    gc.collect()
    give_back()  # reading a tokenizer leaves as much again behind
    engine.prefiller.warm_prefix(engine.tokenizer.prefix())
    log.info("reading_context", is_given=settings.context is not None)
    make_decoder = choose_decoder(settings.decode_weights, engine.model)
    budget = _make_budget(settings, engine)
    asked_bytes = min(budget.total // 2, _MOST_ROWS)
    rows_bytes = asked_bytes if settings.publish else 0
    store = PassageStore(
        settings.context, state / PASSAGES_FILE, encoding=settings.context_encoding
    )
    context = PrivateContext(store, engine.tokenizer, ContextLog())
    kept_at = prepared.path / KEPT_PROFILE
    profile = _find_profile(
        settings.profile, (prepared.fingerprint, engine.model.fingerprint), kept_at
    )
    log.info(
        "model_loaded",
        model=engine.name,
        device=str(device),
        weights=weights.name,
        threads=num_threads,
        context_tokens=context.summary.num_tokens,
    )
    return ParticipantNode(
        node_id=settings.node_id,
        identity=Identity(certificates),
        model_name=engine.name,
        software_version=__version__,
        prefiller=engine.prefiller,
        tokenizer=engine.tokenizer,
        context=context,
        max_sessions=settings.max_sessions,
        num_threads=num_threads,
        pressure=PressureGauge(_pressure_limits(settings)),
        memory=budget,
        frames=KvCache(min(budget.total // 4, _MOST_FRAMES), budget=budget),
        rows=KvCache(rows_bytes, budget=budget),
        states=KvCache(rows_bytes, budget=budget),
        asked=KvCache(asked_bytes, budget=budget),
        rows_lifetime_s=settings.rows_lifetime_s,
        policy=PolicyFile(settings.policy, ApprovalGate(ApprovalStore(state))),
        audit=AuditLog(state / AUDIT_FILE),
        publishes=settings.publish,
        profile=profile,
        profile_path=kept_at if settings.calibrate == "auto" and profile is None else None,
        make_decoder=make_decoder,
    )


def _make_budget(settings: ParticipantSettings, engine: Engine) -> MemoryBudget:
    """What sessions and caches may hold; the model is loaded, and its prefix computed.

    Raises:
        ConfigurationError: the memory of the settings has no room for a session.
    """
    fixed = own_bytes()
    if settings.publish:
        fixed += decoder_bytes(settings.decode_weights, engine.model)
    offered = memory_limit() or psutil.virtual_memory().total // 2
    room = room_beside(fixed, settings.memory, offered)
    log.info("memory", own_mib=fixed >> 20, for_sessions_mib=room >> 20)
    return MemoryBudget(room)


def _pressure_limits(settings: ParticipantSettings) -> PressureLimits:
    return PressureLimits(
        high_c=settings.high_temperature_c,
        critical_c=settings.critical_temperature_c,
        high_memory=settings.high_memory_free,
        critical_memory=settings.critical_memory_free,
        keep_ratio=settings.pressure_keep_ratio,
    )


def _find_profile(
    path: Path | None, fingerprints: tuple[str, str], kept_at: Path
) -> Profile | None:
    """The profile of the settings, the shipped one, or one that a node made here before.

    Args:
        path: that of the settings.
        fingerprints: of the model as its source has it, whose profiles hold for all forms of its
            weights, and in the form that is loaded.
        kept_at: where a node keeps one.

    Raises:
        InvalidPlanError: that of the settings is no profile of this model.
    """
    source, loaded = fingerprints
    if path is None:
        found = shipped_profile(source) or kept_profile(kept_at, loaded)
        if found is None:
            log.info("no_profile", hint="plan auto sends every row of every block but 0")
        return found
    profile = load_profile(path)
    profile.check_model(loaded if profile.fingerprint == loaded else source)
    return profile


class Participant:
    """A running participant; speaks plaintext if its node has no certificates."""

    def __init__(self, settings: ParticipantSettings, node: ParticipantNode) -> None:
        self._settings = settings
        self._node = node
        self._certificates = certificates = node.identity.certificates
        self._aggregators = Aggregators(settings.endpoints, certificates, settings.find_way)
        self._contributor = Contributor(node, self._aggregators)
        self._door = self._make_door() if node.publishes else None
        self.control = ControlLoop(
            node, self._contributor, self._aggregators, settings.reconnect_max_s, self._door
        )
        node.metrics.joined.set_function(self.control.joined.is_set)

    async def serve(self, stopping: asyncio.Event) -> None:
        """Take queries if asked to, stay joined, and end gracefully.

        Raises:
            FedAttnError: the aggregator refuses this node for good.
        """
        if self._door is not None:
            await self._door.open()
        membership = asyncio.create_task(self.control.run())
        stop = asyncio.create_task(stopping.wait())
        background: list[asyncio.Task[None]] = []
        try:
            notify_ready()
            background.extend(asyncio.create_task(keep_running(w)) for w in self._besides())
            await asyncio.wait({membership, stop}, return_when=asyncio.FIRST_COMPLETED)
            for task in background:
                task.cancel()
            if membership.done():
                membership.result()
            log.info("stopping")
            await self._drain()
        finally:
            stop.cancel()
            if self._door is not None:
                await self._door.close()  # while joined: last words travel through the aggregator
            if self.control.leave():
                await asyncio.wait({membership}, timeout=_GOODBYE_S)
            for task in (membership, *background):
                task.cancel()
            await asyncio.gather(membership, *background, return_exceptions=True)
            await self._contributor.close()
            await self._aggregators.close()
            self._node.close()

    def _besides(self) -> Iterator[Callable[[], Awaitable[None]]]:
        """What goes on beside the sessions."""
        yield lambda: look_after(self._node)
        yield lambda: keep_fresh(self._node.context)
        yield self._keep_certificates
        if self._node.profile_path is not None:
            yield self._calibrate
        if self._settings.keep_warm_s > 0:
            yield self._keep_warm

    def _make_door(self) -> Door:
        servicer = ParticipantServicer(self._node, self._aggregators)
        return Door(
            lambda server: participant_pb2_grpc.add_ParticipantServiceServicer_to_server(
                servicer, server
            ),
            self._aggregators,
            self._certificates,
        )

    async def _keep_warm(self) -> None:
        await keep_warm(
            self._node,
            self._aggregators,
            self.control.joined,
            self._settings.keep_warm_s,
        )

    async def _calibrate(self) -> None:
        assert self._node.profile_path is not None
        await calibrate_in_background(self._node, self._node.profile_path)

    async def _keep_certificates(self) -> None:
        await keep_certificates(self._certificates, self._settings.certificates_interval_s)

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self._settings.grace_s):
                await self._node.admission.drain()
        except TimeoutError:
            log.warning("sessions_cut_short", grace_s=self._settings.grace_s)
