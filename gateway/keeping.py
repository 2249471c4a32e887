"""Where a gateway keeps its jobs, and where it finds API keys: alone, or with others."""

from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedattn.cluster.shared_key import SharedKey
from fedattn.runtime.extras import require_extras
from fedattn.runtime.state import JOBS_FILE, make_state_dir
from gateway.jobs import Jobs
from gateway.jobs_port import Alone
from gateway.jobs_sqlite import SqliteJobStore
from gateway.quotas import Quotas
from gateway.settings import GatewaySettings
from gateway.sign_in import FindsKeys

if TYPE_CHECKING:
    from gateway.cluster.counts import Counts


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a gateway keeps.

    Attributes:
        link: to be entered before the jobs.
        jobs: of all callers.
        counts: what callers have had, as gateways tell each other; None for the only one.
        shared_keys: in NATS, if they are used.
    """

    link: AbstractAsyncContextManager[object]
    jobs: Jobs
    shared_keys: FindsKeys | None = None
    counts: "Counts | None" = None

    def share_counts(self, quotas: Quotas) -> None:
        """Have other gateways hear what is counted here, and count what they tell."""
        if self.counts is not None:
            quotas.tell, self.counts.hear = self.counts.tell, quotas.hear


def keeping(settings: GatewaySettings) -> Keeping:
    """As the settings say.

    Raises:
        ConfigurationError: the state folder or the shared key is of no use.
    """
    access = settings.nats_access
    if access is None:
        jobs = Jobs(SqliteJobStore(_jobs_file(settings)), Alone(), settings.job_limits)
        return Keeping(nullcontext(), jobs)
    require_extras("cluster")
    from gateway.cluster.jobs import NatsJobStore  # noqa: PLC0415 - an extra brings its library
    from gateway.cluster.keys import SharedKeyRing  # noqa: PLC0415
    from gateway.cluster.link import Link  # noqa: PLC0415

    link = Link(access, SharedKey.read(settings.shared_key_file), settings.lease_s)
    jobs = Jobs(NatsJobStore(link), link, settings.job_limits)
    link.cancel = jobs.remove_here
    keys = SharedKeyRing(link, settings.caller_limits) if settings.shared_keys else None
    return Keeping(link, jobs, keys, link.counts)


def _jobs_file(settings: GatewaySettings) -> Path | None:
    """Where jobs are kept; None for in memory."""
    return None if settings.state is None else make_state_dir(settings.state) / JOBS_FILE
