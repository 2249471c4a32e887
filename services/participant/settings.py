"""Settings of a participant."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from fedattn.core.address import HostPort, HostPorts
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import check_text_encoding
from fedattn.core.node_id import check_node_id
from fedattn.core.proxies import AUTO, Endpoint, find_endpoint
from fedattn.runtime.settings import (
    PROXY_MEANING,
    PeerAddresses,
    ProxyChoice,
    ServiceSettings,
    service_config,
)
from fedattn.runtime.state import default_state_dir
from fedattn.wire.protocol import MAX_LIFETIME_S


class ParticipantSettings(ServiceSettings):
    """Environment variables FEDATTN_PARTICIPANT_*, overridden by flags."""

    model_config = service_config("FEDATTN_PARTICIPANT_", "python -m services.participant")

    node_id: str = Field(description="Id of this node, unique at its aggregator.")
    aggregator: PeerAddresses = Field(
        HostPorts((HostPort("127.0.0.1", 50051),)),
        description="HOST:PORT of the aggregator, or of several with commas between: if one is "
        "lost, the next is taken.",
    )
    proxy: ProxyChoice = Field(AUTO, description=PROXY_MEANING)
    context: Path | None = Field(
        None, description="Private text: a file, or a folder of text files (docs/texts.md)."
    )
    context_encoding: str | None = Field(
        None,
        description="Encoding of texts that are neither UTF-8 nor UTF-16, such as cp1252; "
        "without it only what is certain is read.",
    )
    policy: Path | None = Field(
        None,
        description="TOML file that says who gets which rows (docs/policy.md); "
        "default: whoever asks, of every block but 0.",
    )
    state: Path | None = Field(
        None,
        description="Folder of the approvals and the audit log; default: one with the node's id "
        "in ~/.local/state/fedattn.",
    )
    publish: bool = Field(
        False,
        description="Let gateways ask through this node. It then computes answers, which may quote "
        "its own text and go by no policy (docs/privacy.md).",
    )
    model: str = Field("default", description="Model: default, folder, .gguf file or hub id.")
    device: str = Field("auto", description="Where the model computes: auto, cpu, cuda or cuda:N.")
    weights: str = Field(
        "auto",
        description="Form of the weights: float32, bfloat16, float16; stored for the blocks of a "
        "GGUF file; q8_0, q4_0 or q4_k to bring others to blocks; auto for stored where there are "
        "blocks, else float32, and float16 on a GPU (docs/weights.md).",
    )
    decode_weights: str = Field(
        "auto",
        description="Weights a publisher decodes with: float32, int8, or auto: the blocks of "
        "`weights` where it has them, else int8 where it fits.",
    )
    profile: Path | None = Field(
        None, description="Profile that says what plan `auto` is; default: the shipped one."
    )
    calibrate: Literal["auto", "off"] = Field(
        "auto",
        description="Make a profile where none is shipped for the model, while no session runs: "
        "auto, off (docs/plans.md).",
    )
    system_prompt: str | None = Field(
        None, description="Public system prompt; the same on every node of a session."
    )
    threads: int = Field(
        0, ge=0, le=256, description="CPU threads for the model; 0 for all it may use."
    )
    max_sessions: int = Field(16, ge=1, le=64, description="Sessions at once.")
    reconnect_max_s: float = Field(
        10.0, gt=0, description="Longest pause between attempts to reach the aggregator."
    )
    memory: int = Field(
        0,
        ge=0,
        description="Bytes that the node may hold: libraries, sessions and what it keeps of them, "
        "but not mapped weights, which the system can drop and read again; 0 for nine tenths of "
        "what its control group may hold, or of half the machine's.",
    )
    rows_lifetime_s: float = Field(
        3600.0,
        ge=0,
        le=MAX_LIFETIME_S,
        description="How long a publisher may hold this node's rows; 0 forbids it.",
    )
    keep_warm_s: float = Field(
        0.0,
        ge=0,
        description="A publisher fetches rows ahead of questions every so often; 0 for never.",
    )
    grace_s: float = Field(10.0, ge=0, description="Time for running sessions at a stop.")
    high_temperature_c: float = Field(
        0.0, ge=0, le=150, description="From here on it sends fewer rows; 0 for never."
    )
    critical_temperature_c: float = Field(
        0.0, ge=0, le=150, description="From here on it takes no new sessions; 0 for never."
    )
    high_memory_free: float = Field(
        0.05, ge=0, le=1, description="Below this share of free memory it sends fewer rows."
    )
    critical_memory_free: float = Field(
        0.02, ge=0, le=1, description="Below this share of free memory it takes no new sessions."
    )
    pressure_keep_ratio: float = Field(
        0.5, gt=0, le=1, description="Most of its rows that it sends when hot or short of memory."
    )

    @property
    def endpoint(self) -> Endpoint:
        """The first aggregator, and how to reach it; raises as `find_way`."""
        return self.find_way(self.aggregator.first)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The aggregators, and how to reach them; raises as `find_way`."""
        return tuple(map(self.find_way, self.aggregator.all))

    def find_way(self, address: HostPort) -> Endpoint:
        """How to reach an aggregator.

        Raises:
            ConfigurationError: the environment names a proxy on the way that is of no use.
        """
        return find_endpoint(address, os.environ, self.proxy)

    @property
    def state_dir(self) -> Path:
        """The folder of approvals and audit log.

        Raises:
            ConfigurationError: none is set, and this user has no home folder.
        """
        return self.state or default_state_dir(self.node_id)

    @property
    def log_name(self) -> str:
        return f"participant/{self.node_id}"

    @field_validator("node_id")
    @classmethod
    def _check_node_id(cls, value: str) -> str:
        try:
            return check_node_id(value)
        except InvalidRequestError as error:
            raise ValueError(str(error)) from None

    @field_validator("context_encoding")
    @classmethod
    def _check_encoding(cls, value: str | None) -> str | None:
        return check_text_encoding(value) if value else value

    @field_validator("context", "policy", "profile")
    @classmethod
    def _check_path(cls, value: Path | None) -> Path | None:
        if value is not None and not value.exists():
            raise ValueError("no such file or folder")
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        assert self.endpoints
        if 0 < self.critical_temperature_c < self.high_temperature_c:
            raise ValueError("critical_temperature_c must not be below high_temperature_c")
        if self.keep_warm_s and not self.publish:
            raise ValueError("keep_warm_s is for a publisher; give --publish too, or leave it out")
        if self.critical_memory_free > self.high_memory_free:
            raise ValueError("critical_memory_free must not be above high_memory_free")
        return self
