"""The generated client stubs, with their asyncio types.

The generated modules define one class for both channel kinds; the asyncio variant exists only in
their type stubs.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedattn.wire.v1.aggregator_pb2_grpc import AggregatorServiceAsyncStub as AggregatorStub
    from fedattn.wire.v1.participant_pb2_grpc import ParticipantServiceAsyncStub as ParticipantStub
else:
    from fedattn.wire.v1.aggregator_pb2_grpc import AggregatorServiceStub as AggregatorStub
    from fedattn.wire.v1.participant_pb2_grpc import ParticipantServiceStub as ParticipantStub

__all__ = ["AggregatorStub", "ParticipantStub"]
