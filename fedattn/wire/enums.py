"""Enums of the wire and of the core, one map each.

Members pair by name: `ROLE_PUBLISHER` with prefix `ROLE` is `Role.PUBLISHER`. A map that lacks a
member on either side cannot be made, so a new member needs the core, the proto and nothing else.
"""

from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

from fedattn.core.contexts import SkipReason
from fedattn.core.errors import InvalidRequestError
from fedattn.core.report import FinishReason, NodeState, Outcome, Pressure, RowSource
from fedattn.core.request import Exchange, Kem
from fedattn.core.share import Share
from fedattn.core.spans import PrefixMode, Role
from fedattn.core.timeline import Activity
from fedattn.core.turns import Speaker
from fedattn.wire.v1 import aggregator_pb2, participant_pb2, session_pb2

if TYPE_CHECKING:
    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper

C = TypeVar("C", bound=StrEnum)
V = TypeVar("V", bound=int)


class EnumMap(Generic[C, V]):
    """Between one enum of the core and its twin on the wire.

    Args:
        core: the core's.
        wire: the generated one.
        prefix: of the names of its members, without the last underscore.

    Raises:
        ValueError: a member has no twin.
    """

    def __init__(self, core: type[C], wire: "_EnumTypeWrapper[V]", prefix: str) -> None:
        self.core, self.wire_name = core, wire.DESCRIPTOR.name
        self._name = prefix.replace("_", " ").lower()
        names = {f"{prefix}_{member.name}": member for member in core}
        numbers = dict(wire.items())
        numbers.pop(f"{prefix}_UNSPECIFIED")
        if names.keys() != numbers.keys():
            raise ValueError(f"{core.__name__}: no twin of {names.keys() ^ numbers.keys()}")
        self._to_wire = {member: numbers[name] for name, member in names.items()}
        self._from_wire: dict[int, C] = {self._to_wire[member]: member for member in core}

    def to_wire(self, member: C) -> V:
        """Its number."""
        return self._to_wire[member]

    def find(self, number: int) -> C | None:
        """The member of a number, None if there is none."""
        return self._from_wire.get(number)

    def from_wire(self, number: int) -> C:
        """The member of a number.

        Raises:
            InvalidRequestError: there is none.
        """
        member = self.find(number)
        if member is None:
            known = ", ".join(self._to_wire)
            raise InvalidRequestError(
                f"{self._name} {number} is not known here, only {known}; upgrade this node"
            )
        return member


ROLES = EnumMap(Role, session_pb2.Role, "ROLE")
PREFIX_MODES = EnumMap(PrefixMode, session_pb2.PrefixMode, "PREFIX_MODE")
OUTCOMES = EnumMap(Outcome, session_pb2.Outcome, "OUTCOME")
ROW_SOURCES = EnumMap(RowSource, session_pb2.RowSource, "ROW_SOURCE")
ACTIVITIES = EnumMap(Activity, session_pb2.Activity, "ACTIVITY")
FINISH_REASONS = EnumMap(FinishReason, participant_pb2.FinishReason, "FINISH_REASON")
PRESSURES = EnumMap(Pressure, aggregator_pb2.Pressure, "PRESSURE")
NODE_STATES = EnumMap(NodeState, aggregator_pb2.NodeState, "NODE_STATE")
SPEAKERS = EnumMap(Speaker, participant_pb2.Speaker, "SPEAKER")
SHARES = EnumMap(Share, session_pb2.Share, "SHARE")
EXCHANGES = EnumMap(Exchange, session_pb2.Exchange, "EXCHANGE")
KEMS = EnumMap(Kem, session_pb2.Kem, "KEM")
SKIP_REASONS = EnumMap(SkipReason, session_pb2.SkipReason, "SKIP_REASON")
