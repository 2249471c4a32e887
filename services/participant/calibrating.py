"""A node whose model has no profile makes one, while nobody asks anything of it."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import structlog
import torch
from filelock import FileLock, Timeout

from fedattn.core.errors import FedAttnError
from fedattn.core.profile import Profile
from fedattn.core.report import Pressure
from fedattn.model.engine import Engine
from fedattn.model.prefill import Prefiller
from fedattn.profiles import kept_profile, save_profile
from fedattn.research.calibrate.run import QUICK, Calibration
from fedattn.research.calibrate.texts import own_contexts
from services.participant.node import ParticipantNode

_LOOK_S = 0.5
"""Between two looks whether it may go on."""
_LEAST_PRIORITY = 19

log = structlog.get_logger(__name__)


class StoppedError(Exception):
    """The node stops, and so does its calibration."""


async def calibrate_in_background(node: ParticipantNode, path: Path) -> None:
    """Give a node the profile that is kept at a path, or make it; ends once the node has it.

    One thread computes, at the lowest priority where that can be had, and only while no session
    runs and the machine is not under pressure. Of several nodes of one user one does the work.
    """
    work = BackgroundCalibration(node, path)
    pool = ThreadPoolExecutor(1, "calibrate", _stay_behind)
    try:
        profile = await asyncio.get_running_loop().run_in_executor(pool, work.run)
    except FedAttnError as error:
        log.info("not_calibrated", why=str(error))
        return
    finally:
        work.stopping.set()
        pool.shutdown(wait=False)
    node.profile = profile
    chosen = profile.points[profile.default]
    log.info(
        "calibrated",
        keep_ratio=chosen.keep_ratio,
        codec=chosen.codec,
        fewer_bytes=chosen.fewer_bytes,
        divergence=round(chosen.divergence, 4),
    )


class BackgroundCalibration:
    """What runs in the thread.

    Args:
        node: its model is calibrated.
        path: where the profile is kept.

    Attributes:
        stopping: ends it at its next step.
    """

    def __init__(self, node: ParticipantNode, path: Path) -> None:
        self._node, self._path = node, path
        self.stopping = threading.Event()
        self._said = ""

    def run(self) -> Profile:
        """The profile; that of another node if it put one there.

        Raises:
            InvalidRequestError: the model's window is too small for any text.
            StoppedError: the node stops.
        """
        fingerprint = self._node.prefiller.model.fingerprint
        with self._claimed() as may_write:
            profile = kept_profile(self._path, fingerprint)
            if profile is None:
                log.info("calibrating", hint="plan auto sends every row meanwhile")
                profile = self._calibration().run(self.tell)
                if may_write:
                    save_profile(profile, self._path)
            return profile

    def tell(self, stage: str, done: int, total: int) -> None:
        """Log each fifth of a stage, and let sessions go first."""
        said = f"{stage}, {5 * done // total} of 5 parts"
        if said != self._said:
            self._said = said
            log.info("calibrating", done=said)
        while self._must_wait() and not self.stopping.wait(_LOOK_S):
            pass
        if self.stopping.is_set():
            raise StoppedError

    def _must_wait(self) -> bool:
        is_strained = self._node.pressure.level is not Pressure.NONE
        return is_strained or self._node.admission.active_sessions > 0

    def _calibration(self) -> Calibration:
        """Of the model as it is loaded, with the node's own text if it has one."""
        node = self._node
        engine = Engine(
            name=node.model_name,
            model=node.prefiller.model,
            tokenizer=node.tokenizer,
            prefiller=Prefiller(node.prefiller.model),
        )
        store, tokenize = node.context.store, node.tokenizer.context
        return Calibration(engine, QUICK, own=lambda most: own_contexts(store, tokenize, most))

    @contextmanager
    def _claimed(self) -> Iterator[bool]:
        """Be the only one who makes it; False where nothing can be written."""
        if not os.access(self._path.parent, os.W_OK):
            yield False
            return
        lock = FileLock(f"{self._path}.lock")
        while not lock.is_locked:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                if self.stopping.wait(_LOOK_S):
                    raise StoppedError from None
        try:
            yield True
        finally:
            lock.release()


def _stay_behind() -> None:
    """Begin a thread that others go before."""
    torch.set_num_threads(1)  # of this thread
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LEAST_PRIORITY)
