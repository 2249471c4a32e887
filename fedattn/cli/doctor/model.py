"""Whether the model can be had, is prepared, and is the one that the others have."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedattn.cli.doctor.finding import Found, ok, problem, skipped, warning
from fedattn.cli.doctor.subject import Subject
from fedattn.cli.nodes import joined
from fedattn.core.errors import FedAttnError
from fedattn.runtime.extras import require_extras

if TYPE_CHECKING:
    from fedattn.model.prepare import PreparedModel


def check_model(subject: Subject) -> Iterator[Found]:
    """Source, cache, and the fingerprints of the other nodes."""
    require_extras("participant")
    from fedattn.model.prepare import find_prepared

    name = subject.settings.model
    prepared = find_prepared(name)
    if prepared is None:
        yield warning(
            f"{name} is there, and not prepared in the cache; the first start does it",
            f"fedattn model prepare {name}",
        )
        return
    yield ok(f"{prepared.name} is prepared in {prepared.path}")
    yield _compare(subject, prepared)


def _compare(subject: Subject, prepared: "PreparedModel") -> Found:
    if subject.gateway is None:
        return skipped(
            f"fingerprint {prepared.fingerprint[:12]} was compared with nobody's", "give --gateway"
        )
    try:
        nodes = joined(subject.gateway.participants())
    except FedAttnError:
        return skipped("fingerprint was compared with nobody's: the gateway does not answer")
    others = [node for node in nodes if node.node_id != subject.node_id]
    same = [node for node in others if node.model_fingerprint == prepared.fingerprint]
    if not others:
        return skipped("fingerprint was compared with nobody's: no other node is joined")
    told = (
        f"fingerprint {prepared.fingerprint[:12]} is that of {len(same)} of {len(others)} other "
        f"nodes"
    )
    if len(same) == len(others):
        return ok(told)
    names = sorted({node.model_name for node in others} - {node.model_name for node in same})
    remedy = f"the others have {', '.join(names) or 'other files of the same name'}: give --model"
    return warning(told, remedy) if same else problem(told, remedy)
