"""An answer as the chunks of `/v1/chat/completions`."""

import json
import time
from collections.abc import Iterator
from typing import Any

from sse_starlette import ServerSentEvent

from fedattn.rest.answers import QueryAnswer, Retried
from fedattn.rest.events import LayerEvent, QueryEvent, QueuedEvent, SessionEvent, TokenEvent
from fedattn.rest.openai_chat import FINISH_REASONS, Usage
from fedattn.rest.openai_models import ErrorEnvelope
from fedattn.rest.problems import Problem


class ChatChunks:
    """Writes the events of one chat; an `Encode`.

    Args:
        model: its id.
        include_usage: whether a last chunk counts tokens.
    """

    def __init__(self, model: str, *, include_usage: bool) -> None:
        self._fields: dict[str, Any] = {
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._include_usage = include_usage

    def __call__(self, event: QueryEvent | Problem) -> Iterator[ServerSentEvent]:
        """What stands for an event in the stream."""
        match event:
            case QueuedEvent():
                yield ServerSentEvent(comment=event.words)
            case Retried():
                yield ServerSentEvent(comment=f"asked again without {', '.join(event.without)}")
            case SessionEvent() if "id" in self._fields:
                yield ServerSentEvent(comment="another session")  # of the same answer
            case SessionEvent():
                self._fields["id"] = f"chatcmpl-{event.session_id}"
                yield self._chunk({"role": "assistant", "content": ""})
            case LayerEvent():
                yield ServerSentEvent(comment=f"layer {event.layer}")  # keeps the line alive
            case TokenEvent():
                yield self._chunk({"content": event.text})
            case QueryAnswer():
                yield from self._end(event)
            case Problem():
                yield ServerSentEvent(ErrorEnvelope.of(event).model_dump_json())

    def _end(self, answer: QueryAnswer) -> Iterator[ServerSentEvent]:
        report = answer.model_dump(mode="json")
        yield self._chunk({}, FINISH_REASONS[answer.finish_reason], fedattn=report)
        if self._include_usage:
            yield self._event(choices=[], usage=Usage.of(answer).model_dump())
        yield ServerSentEvent("[DONE]")

    def _chunk(
        self, delta: dict[str, str], finish_reason: str | None = None, **more: Any
    ) -> ServerSentEvent:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return self._event(choices=[choice], **more)

    def _event(self, **fields: Any) -> ServerSentEvent:
        return ServerSentEvent(json.dumps(self._fields | fields))
