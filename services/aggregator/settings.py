"""Settings of the aggregator."""

from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from fedattn.cluster.settings import ClusterSettings
from fedattn.core.address import HostPort
from fedattn.core.errors import ConfigurationError, InvalidRequestError
from fedattn.core.node_id import AGGREGATOR, check_name
from fedattn.runtime.settings import (
    ListenAddress,
    PeerAddress,
    service_config,
    split_texts,
)
from fedattn.runtime.state import default_state_dir
from services.aggregator.pace import PaceLimits


class AggregatorSettings(ClusterSettings):
    """Environment variables FEDATTN_AGGREGATOR_*, overridden by flags."""

    model_config = service_config("FEDATTN_AGGREGATOR_", "python -m services.aggregator")

    listen: ListenAddress = Field(
        HostPort("127.0.0.1", 50051), description="HOST:PORT to serve on; port 0 for any."
    )
    state: Path | None = Field(
        None,
        description="Folder of the audit log; default: aggregator in ~/.local/state/fedattn.",
    )
    reflection: bool = Field(False, description="Let clients ask for the gRPC schema.")
    name: str = Field(
        AGGREGATOR,
        description="Name of this aggregator, unique in its federation (docs/cluster.md).",
    )
    advertise: PeerAddress | None = Field(
        None,
        description="HOST:PORT under which nodes and gateways reach this very aggregator; needed "
        "with nats.",
    )
    nats_domains: str = Field(
        "", description="Further domains whose directories are read, with commas between."
    )
    max_nodes: int = Field(
        1000,
        ge=1,
        description="Nodes joined at once; of those that left within the hour as many are "
        "remembered, the latest.",
    )
    max_sessions: int = Field(200, ge=1, description="Sessions open at once.")
    max_sessions_per_node: int = Field(
        16, ge=1, description="Sessions one node may have open at once as their publisher."
    )
    max_sessions_per_node_per_hour: int = Field(
        3600, ge=1, description="Sessions one node may open within an hour."
    )
    max_tunnels: int = Field(
        192,
        ge=1,
        description="Connections of gateways to nodes at once; each has up to 256 KiB here, and is "
        "one of the 256 calls that all gateways share.",
    )
    heartbeat_interval_s: float = Field(
        5.0, gt=0, description="Time between a node's heartbeats; three missed ones end it."
    )
    invite_timeout_s: float = Field(
        10.0,
        gt=0,
        description="Longest wait for a contributor's length, for the Hello of an exchange, and "
        "for members to begin theirs.",
    )
    margin_s: float = Field(
        5.0,
        gt=0,
        description="What a member has besides ten times the median of the others, to answer, to "
        "begin, and for each frame; never more than the limits here.",
    )
    progress_timeout_s: float = Field(
        30.0,
        gt=0,
        description="Longest wait for the next whole frame of a member that others wait for, "
        "besides what min_bytes_per_s gives it.",
    )
    min_bytes_per_s: int = Field(
        8192, ge=1, description="Bytes a second at which a frame that has begun must come."
    )
    first_pause_s: float = Field(
        30.0,
        gt=0,
        description="How long queries go without a node that let others wait twice in a row; each "
        "further time doubles it.",
    )
    max_pause_s: float = Field(3600.0, gt=0, description="Longest such pause.")
    stall_timeout_s: float = Field(
        10.0, gt=0, description="Longest wait for a receiver that takes no rows."
    )
    report_timeout_s: float = Field(
        2.0, gt=0, description="Longest wait for contributors' last words after the publisher's."
    )
    max_session_bytes: int = Field(
        1 << 30, ge=1 << 20, description="Most KV bytes one member may receive in a session."
    )
    outbox_bytes: int = Field(
        16 << 20, ge=1 << 20, description="Bytes that may wait for one receiver."
    )
    grace_s: float = Field(10.0, ge=0, description="Time for running sessions at a stop.")

    @property
    def state_dir(self) -> Path:
        """The folder of the audit log.

        Raises:
            ConfigurationError: none is set, and this user has no home folder.
        """
        return self.state or default_state_dir(AGGREGATOR)

    def _further_domains(self) -> tuple[str, ...]:
        return split_texts(self.nats_domains)

    @property
    def tick_s(self) -> float:
        """Time between two looks at who lets others wait."""
        return min(1.0, self.progress_timeout_s / 10, self.invite_timeout_s / 10)

    @property
    def receiver_timeout_s(self) -> float:
        """Longest wait of a receiver by itself: the aggregator, which sees who is due, is first."""
        return 1.5 * self.progress_timeout_s

    def pace(self, deadline_s: float) -> PaceLimits:
        """How long members of a session with that deadline may let others wait."""
        return PaceLimits(
            attach_s=self.invite_timeout_s,
            frame_s=self.progress_timeout_s,
            margin_s=min(self.margin_s, self.progress_timeout_s),
            bytes_per_s=self.min_bytes_per_s,
            total_s=deadline_s / 2,
            tick_s=2 * self.tick_s,
        )

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        try:
            return check_name(value)
        except InvalidRequestError as error:
            raise ValueError(str(error)) from None

    @model_validator(mode="after")
    def _check_federation(self) -> Self:
        if self.nats is not None and self.advertise is None:
            raise ConfigurationError(
                "--nats needs --advertise HOST:PORT: where nodes and gateways reach this aggregator"
            )
        return self

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.stall_timeout_s >= self.progress_timeout_s:
            raise ValueError(
                f"stall_timeout_s ({self.stall_timeout_s:g}) must be below progress_timeout_s "
                f"({self.progress_timeout_s:g}), or a slow receiver looks like a slow sender"
            )
        if self.first_pause_s > self.max_pause_s:
            raise ValueError("first_pause_s must not be above max_pause_s")
        return self
