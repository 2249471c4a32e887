"""A whole network in one document: what `federation.toml` may say (docs/federation-file.md)."""

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from fedattn.cli.node_names import check_own_name, name_after
from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import check_text_encoding
from fedattn.wire.protocol import MAX_LIFETIME_S

FOLDER = "folder"
"""In the validation's context: the folder that relative paths start from."""
MAX_NODES = 16
"""Processes with a model each, on one machine."""
DESK = "desk"


def _check_id(name: str) -> str:
    try:
        return check_own_name(name)
    except InvalidRequestError as error:
        raise ValueError(str(error)) from None


def _beside(path: Path, info: ValidationInfo) -> Path:
    return Path((info.context or {}).get(FOLDER, "")) / path.expanduser()


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ValueError("expected a file or folder that is there")
    return path


def _model(model: str, info: ValidationInfo) -> str:
    """A model that lies beside the document is a path; any other name is as it is."""
    path = _beside(Path(model), info)
    return str(path) if path.exists() else model


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        raise ValueError("expected auto, cpu, cuda or cuda:N")
    return name


NodeId = Annotated[str, AfterValidator(_check_id)]
OwnPath = Annotated[Path, AfterValidator(_beside)]
ExistingPath = Annotated[OwnPath, AfterValidator(_existing)]
ModelName = Annotated[str, AfterValidator(_model)]
WeightsName = Literal["auto", "float32", "bfloat16", "float16", "stored", "q8_0", "q4_0", "q4_k"]
DecodeWeightsName = Literal["auto", "float32", "int8"]
"""Both as the model names them, which is not loaded for it: that takes seconds."""
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Table(BaseModel):
    """A table whose keys are settings of a service, under the same names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def flags(self, *without: str) -> list[str]:
        """What it says, as flags of the service; it checks them once more."""
        given = self.model_dump(mode="json", exclude_none=True, exclude=set(without))
        return [f"--{key.replace('_', '-')}={value}" for key, value in given.items()]


class NodeTable(Table):
    """One node: a name, or a text, or both."""

    id: NodeId | None = None
    context: ExistingPath | None = None
    context_encoding: Annotated[str, AfterValidator(check_text_encoding)] | None = None
    model: ModelName | None = None
    policy: ExistingPath | None = None
    profile: ExistingPath | None = None
    device: Annotated[str, AfterValidator(_device)] | None = None
    weights: WeightsName | None = None
    decode_weights: DecodeWeightsName | None = None
    threads: Annotated[int, Field(ge=0, le=256)] | None = None
    max_sessions: Annotated[int, Field(ge=1, le=64)] | None = None
    memory: Annotated[int, Field(ge=0)] | None = None
    rows_lifetime_s: Annotated[float, Field(ge=0, le=MAX_LIFETIME_S)] | None = None
    keep_warm_s: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _check_named(self) -> Self:
        if self.id is None and self.context is None:
            raise ValueError("expected an id, a context or both, got neither")
        return self

    @property
    def name(self) -> str:
        """Its id; only of nodes that were named."""
        assert self.id is not None
        return self.id


class GatewayTable(Table):
    """The gateway, on the loopback."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    keys: ExistingPath | None = None
    share: Literal["nothing", "question"] | None = None
    queries_per_minute: Count | None = None
    max_concurrent: Count | None = None
    max_concurrent_queries: Count | None = None
    kv_bytes_per_day: Count | None = None
    cors_origin: str | None = None


class AggregatorTable(Table):
    """The aggregator."""

    max_sessions: Count | None = None
    max_sessions_per_node: Count | None = None
    max_sessions_per_node_per_hour: Count | None = None
    heartbeat_interval_s: Seconds | None = None
    invite_timeout_s: Seconds | None = None
    progress_timeout_s: Seconds | None = None
    stall_timeout_s: Seconds | None = None
    max_session_bytes: Annotated[int, Field(ge=1 << 20)] | None = None
    outbox_bytes: Annotated[int, Field(ge=1 << 20)] | None = None


class Federation(Table):
    """A network on this machine. Texts name the nodes that have no id.

    Attributes:
        model: of every node that names no other.
        publisher: who asks unless a query names another; a node without text if no node has
            that id.
        system_prompt: public; the same on every node.
        state: folder that keeps indices, audit logs and approvals; None: they go with the network.
        node: at least one.
    """

    model: ModelName = "default"
    publisher: NodeId = DESK
    system_prompt: str | None = None
    state: OwnPath | None = None
    node: Annotated[list[NodeTable], Field(min_length=1, max_length=MAX_NODES)]
    gateway: GatewayTable = GatewayTable()
    aggregator: AggregatorTable = AggregatorTable()

    @model_validator(mode="after")
    def _check_ids(self) -> Self:
        given = Counter(node.id.lower() for node in self.node if node.id is not None)
        for number, node in enumerate(self.node, start=1):
            if node.id is not None and given[node.id.lower()] > 1:
                raise ValueError(
                    f"[[node]] {number}, key id: expected one that no other node has in any case "
                    f"of letters, got {node.id!r}"
                )
        return self

    def nodes(self) -> list[NodeTable]:
        """All nodes, each with its id and its model; the default publisher is the first."""
        taken = {node.id.lower() for node in self.node if node.id is not None}
        nodes: list[NodeTable] = []
        for node in self.node:
            name = node.id or name_after(node.context or Path(), taken)
            taken.add(name.lower())
            nodes.append(node.model_copy(update={"id": name, "model": node.model or self.model}))
        if self.publisher.lower() not in taken:
            nodes.append(NodeTable(id=self.publisher, model=self.model))
        return sorted(nodes, key=lambda node: node.name.lower() != self.publisher.lower())
