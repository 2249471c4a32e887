"""Publishers as models that clients of OpenAI's API choose from."""

import time
from collections.abc import Iterable

from fedattn.core.errors import UnknownModelError
from fedattn.rest.openai_models import ModelEntry
from fedattn.wire.v1 import aggregator_pb2
from gateway.callers import Caller
from gateway.publishers import Publishers


async def list_models(publishers: Publishers, caller: Caller) -> list[ModelEntry]:
    """What the caller may ask, the default publisher first; counts as a listing.

    Raises:
        RateLimitedError: the caller has had its share.
        AggregatorUnavailableError: nobody can say who is joined.
    """
    answer = await publishers.list_nodes(caller)
    return _models_of(answer.nodes, publishers.node_ids, caller)


async def find_model(publishers: Publishers, caller: Caller, name: str) -> ModelEntry:
    """The model that a query names by its id, or by its publisher alone.

    Counts as a listing only where it is not known yet: the query that follows is counted itself.

    Raises:
        UnknownModelError: there is none that the caller may ask.
        FedAttnError: as `list_models`.
    """
    answer = await publishers.recent_nodes()
    try:
        return choose_model(_models_of(answer.nodes, publishers.node_ids, caller), name)
    except UnknownModelError:  # it may have joined since
        return choose_model(await list_models(publishers, caller), name)


def choose_model(models: Iterable[ModelEntry], name: str) -> ModelEntry:
    """The one with this id, or of this publisher.

    Raises:
        UnknownModelError: there is none.
    """
    known = {entry.id: entry for entry in models}
    for entry in known.values():
        if name in {entry.id, entry.owned_by}:
            return entry
    raise UnknownModelError(
        f"the model {name!r} does not exist, is not joined now, or is not for you; known are "
        f"{', '.join(known) or 'none'}"
    )


def _models_of(
    nodes: Iterable[aggregator_pb2.NodeInfo], publishers: Iterable[str], caller: Caller
) -> list[ModelEntry]:
    joined = {node.node_id: node for node in nodes}
    now = time.time()
    return [
        ModelEntry(
            id=f"{node_id}/{joined[node_id].capabilities.model_name}",
            object="model",
            created=int(now - joined[node_id].joined_for_s),
            owned_by=node_id,
        )
        for node_id in publishers
        if node_id in joined and caller.may_publish(node_id)
    ]
