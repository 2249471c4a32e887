"""Whether this machine has the memory that the model needs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedattn.cli.doctor.finding import Found, ok, problem, skipped, warning
from fedattn.cli.doctor.subject import Subject
from fedattn.core.errors import ModelError
from fedattn.core.plans import shared_plan
from fedattn.core.spans import build_layout
from fedattn.runtime.extras import require_extras

if TYPE_CHECKING:
    from fedattn.core.costs import ModelSizes
    from services.participant.settings import ParticipantSettings

_LIBRARIES_BYTES = 330 << 20
"""Python, torch and transformers, as measured for the profiles of edge devices."""
_TOKENS, _PREFIX_TOKENS, _NEW_TOKENS = 512, 30, 64
"""Of each of three contexts and of the publisher's span; of the public prefix; of the answer."""
_REMEDY = "choose a smaller --model, or --weights q8_0, or give the machine more memory"


def check_memory(subject: Subject) -> Iterator[Found]:
    """The cost model's word, against what is free and what there is at all."""
    require_extras("participant")
    from fedattn.model.fused import FLOAT32
    from fedattn.model.loading import read_sizes
    from fedattn.model.placement import choose_device, choose_weights
    from fedattn.model.prepare import find_prepared
    from services.participant.machine import read_memory

    memory = read_memory()
    there = f"{memory.free >> 20} of {memory.total >> 20} MiB are free"
    try:
        prepared = find_prepared(subject.settings.model)
    except ModelError:  # has a line of its own
        prepared = None
    if prepared is None:
        yield skipped(f"{there}; what the model needs is known when it is prepared")
        return
    device = choose_device(subject.settings.device)
    weights = choose_weights(subject.settings.weights, prepared, device)
    sizes = read_sizes(prepared, weights)
    may_be_int8 = subject.settings.decode_weights != FLOAT32
    decodes_int8 = may_be_int8 and weights.blocks is None and device.type == "cpu"
    needed = needed_bytes(sizes, subject.settings, decodes_int8=decodes_int8)
    told = f"needs about {needed >> 20} MiB, {there}"
    if needed > memory.total:
        yield problem(told, _REMEDY)
    elif needed > memory.free:
        yield warning(f"{told}, unless the node runs already", f"end other programs, or {_REMEDY}")
    else:
        yield ok(told)


def needed_bytes(
    sizes: "ModelSizes", settings: "ParticipantSettings", *, decodes_int8: bool = True
) -> int:
    """Memory of the node's process in a session of four nodes.

    Args:
        sizes: of the model.
        settings: of the node.
        decodes_int8: whether a publisher has a second copy of its weights for that.
    """
    from fedattn.core.costs import session_memory

    num_layers = sizes.kv.num_layers
    layout = build_layout(
        num_layers=num_layers,
        prefix_len=_PREFIX_TOKENS,
        contributors=[(f"contributor-{i}", _TOKENS) for i in range(3)],
        publisher=("publisher", _TOKENS),
        plans=shared_plan(range(num_layers)),
    )
    fixed = _LIBRARIES_BYTES + sizes.weight_bytes
    if not settings.publish:
        contributors = range(len(layout.members) - 1)
        return fixed + max(session_memory(layout, sizes, index) for index in contributors)
    publisher = len(layout.members) - 1
    int8_bytes = sizes.weight_bytes // sizes.bytes_per_scalar if decodes_int8 else 0
    return fixed + int8_bytes + session_memory(layout, sizes, publisher, num_new_tokens=_NEW_TOKENS)
