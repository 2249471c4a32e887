"""What a node tells its aggregator about itself."""

from fedattn.core.codecs import CODECS
from fedattn.wire.contexts import context_to_wire
from fedattn.wire.convert import shape_to_wire, sizes_to_wire
from fedattn.wire.enums import PRESSURES
from fedattn.wire.hints import sign_node_key
from fedattn.wire.protocol import PROTOCOL_VERSION
from fedattn.wire.v1 import aggregator_pb2 as pb
from services.participant.node import ParticipantNode


def join_message(node: ParticipantNode) -> pb.Join:
    """How a node introduces itself."""
    model = node.prefiller.model
    return pb.Join(
        protocol_version=PROTOCOL_VERSION,
        node_id=node.node_id,
        model_fingerprint=model.fingerprint,
        capabilities=pb.Capabilities(
            shape=shape_to_wire(model.shape),
            max_positions=model.max_positions,
            codec_ids=[codec.codec_id for codec in CODECS],
            sizes=sizes_to_wire(model.sizes),
            max_sessions=node.max_sessions,
            model_name=node.model_name[:200],
            software_version=node.software_version[:40],
            prefix_tokens=len(node.prefix),
        ),
        context=context_to_wire(node.context.summary),
        key=sign_node_key(node.node_id, node.hint_keys, node.identity),
        publishes=node.publishes,
    )


def heartbeat(node: ParticipantNode) -> pb.Heartbeat:
    """How a node is."""
    level = node.pressure.update()
    readings = node.pressure.readings
    return pb.Heartbeat(
        active_sessions=node.admission.active_sessions,
        health=pb.Health(
            pressure=PRESSURES.to_wire(level),
            memory_free=readings.memory_free,
            temperature_c=readings.temperature_c or 0.0,
        ),
        context=context_to_wire(node.context.summary),
    )
