"""One map for each enum of the wire, complete on both sides."""

from enum import StrEnum

import pytest

from fedattn.core.errors import InvalidRequestError
from fedattn.core.spans import Role
from fedattn.wire import enums
from fedattn.wire.enums import ROLES, EnumMap
from fedattn.wire.v1 import aggregator_pb2, participant_pb2, session_pb2

MAPS = [value for value in vars(enums).values() if isinstance(value, EnumMap)]


def test_every_enum_of_the_wire_has_a_map() -> None:
    files = (aggregator_pb2, participant_pb2, session_pb2)
    names = {name for file in files for name in file.DESCRIPTOR.enum_types_by_name}
    assert {each.wire_name for each in MAPS} == names


@pytest.mark.parametrize("each", MAPS, ids=lambda each: each.wire_name)
def test_every_member_comes_back(each: EnumMap[StrEnum, int]) -> None:
    assert [each.from_wire(each.to_wire(member)) for member in each.core] == list(each.core)


@pytest.mark.parametrize("number", [0, 99, -1])
def test_a_number_without_a_member_is_refused_by_name(number: int) -> None:
    assert ROLES.find(number) is None
    with pytest.raises(InvalidRequestError, match=f"role {number} is not known here, only contrib"):
        ROLES.from_wire(number)


def test_a_map_with_a_member_missing_cannot_be_made() -> None:
    class Half(StrEnum):
        PUBLISHER = "publisher"

    class Third(StrEnum):
        PUBLISHER = "publisher"
        CONTRIBUTOR = "contributor"
        WATCHER = "watcher"

    EnumMap(Role, session_pb2.Role, "ROLE")
    for core, missing in ((Half, "ROLE_CONTRIBUTOR"), (Third, "ROLE_WATCHER")):
        with pytest.raises(ValueError, match=missing):
            EnumMap(core, session_pb2.Role, "ROLE")
