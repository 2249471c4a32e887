"""An answer as the events of `/v1/responses`."""

import json
import time
from collections.abc import Iterator
from typing import Any

from sse_starlette import ServerSentEvent

from fedattn.rest.answers import QueryAnswer, Retried
from fedattn.rest.events import LayerEvent, QueryEvent, QueuedEvent, SessionEvent, TokenEvent
from fedattn.rest.openai_responses import OutputText, ResponseDocument, ResponsesBody
from fedattn.rest.problems import Problem


class ResponseEvents:
    """Writes the events of one response; an `Encode`.

    Args:
        body: what is asked.
        model: its id.
    """

    def __init__(self, body: ResponsesBody, model: str) -> None:
        self._body, self._model = body, model
        self._created_at = int(time.time())
        self._document = ResponseDocument.begin(body, "", model, self._created_at)
        self._num_written = 0

    def __call__(self, event: QueryEvent | Problem) -> Iterator[ServerSentEvent]:
        """What stands for an event in the stream."""
        match event:
            case QueuedEvent():
                yield ServerSentEvent(comment=event.words)
            case Retried():
                yield ServerSentEvent(comment=f"asked again without {', '.join(event.without)}")
            case SessionEvent() if self._num_written:
                yield ServerSentEvent(comment="another session")  # of the same answer
            case SessionEvent():
                yield from self._begin(event.session_id)
            case LayerEvent():
                yield ServerSentEvent(comment=f"layer {event.layer}")  # keeps the line alive
            case TokenEvent():
                yield self._text("output_text.delta", delta=event.text, logprobs=[])
            case QueryAnswer():
                yield from self._end(event)
            case Problem():
                failed = self._document.fail(event.code, event.detail)
                yield self._write("failed", response=failed.model_dump(mode="json"))

    def _begin(self, session_id: str) -> Iterator[ServerSentEvent]:
        self._document = ResponseDocument.begin(
            self._body, session_id, self._model, self._created_at
        )
        document = self._document.model_dump(mode="json")
        yield self._write("created", response=document)
        yield self._write("in_progress", response=document)
        message = self._document.message(None, "in_progress").model_dump()
        yield self._write("output_item.added", output_index=0, item=message)
        yield self._text("content_part.added", part=OutputText.of("").model_dump())

    def _end(self, answer: QueryAnswer) -> Iterator[ServerSentEvent]:
        document = self._document.end(answer)
        text = answer.answer
        yield self._text("output_text.done", text=text, logprobs=[])
        yield self._text("content_part.done", part=OutputText.of(text).model_dump())
        item = document.output[0].model_dump()
        yield self._write("output_item.done", output_index=0, item=item)
        yield self._write(document.status, response=document.model_dump(mode="json"))

    def _text(self, name: str, **fields: Any) -> ServerSentEvent:
        """An event of the only part of the only message."""
        item_id = self._document.message(None, "in_progress").id
        return self._write(name, item_id=item_id, output_index=0, content_index=0, **fields)

    def _write(self, name: str, **fields: Any) -> ServerSentEvent:
        kind = f"response.{name}"
        data = {"type": kind, "sequence_number": self._num_written} | fields
        self._num_written += 1
        return ServerSentEvent(json.dumps(data), event=kind)
