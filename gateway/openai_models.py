"""Publishers as models that clients of OpenAI's API choose from."""

import time

from fedattn.core.errors import UnknownModelError
from fedattn.rest.openai_models import ModelEntry
from gateway.callers import ANYONE, Caller
from gateway.publishers import Publishers


async def list_models(publishers: Publishers, caller: Caller) -> list[ModelEntry]:
    """What the caller may ask, the default publisher first.

    Raises:
        RateLimitedError: the caller has had its share.
        PublisherUnavailableError: nobody can say who is joined.
    """
    return _allowed(await _entries(publishers, caller), caller)


async def find_model(publishers: Publishers, caller: Caller, name: str) -> ModelEntry:
    """The model that a request names by its id, or by its publisher alone.

    Raises:
        UnknownModelError: there is none that the caller may ask.
        PublisherUnavailableError: nobody can say who is joined.
    """
    known = _allowed(await _entries(publishers, ANYONE), caller)  # the query itself is counted
    for entry in known:
        if name in {entry.id, entry.owned_by}:
            return entry
    raise UnknownModelError(
        f"the model {name!r} does not exist, is not joined now, or is not for you; known are "
        f"{', '.join(entry.id for entry in known) or 'none'}"
    )


async def _entries(publishers: Publishers, asking: Caller) -> list[ModelEntry]:
    answer = await publishers.list_nodes(asking)
    joined = {node.node_id: node for node in answer.nodes}
    now = time.time()
    return [
        ModelEntry(
            id=f"{node_id}/{joined[node_id].capabilities.model_name}",
            object="model",
            created=int(now - joined[node_id].joined_for_s),
            owned_by=node_id,
        )
        for node_id in publishers.node_ids
        if node_id in joined
    ]


def _allowed(entries: list[ModelEntry], caller: Caller) -> list[ModelEntry]:
    return [entry for entry in entries if caller.may_publish(entry.owned_by)]
