"""The part of OpenAI's HTTP API that this network speaks."""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from fedattn.rest.answers import QueryAnswer
from fedattn.rest.openai_chat import ChatBody, ChatCompletion
from fedattn.rest.openai_models import ModelEntry, ModelList
from fedattn.rest.openai_responses import ResponseDocument, ResponsesBody
from gateway.asking import Asking
from gateway.callers import Caller, caller_of
from gateway.json_route import JsonRoute
from gateway.openai_chat import ChatChunks
from gateway.openai_errors import DOCUMENTED_ERRORS
from gateway.openai_models import choose_model, find_model, list_models
from gateway.openai_responses import ResponseEvents

CallerOf = Annotated[Caller, Depends(caller_of)]


def openai_router(asking: Asking) -> APIRouter:
    """Routes for clients of OpenAI's API.

    Args:
        asking: how they ask.
    """
    router = APIRouter(
        prefix="/v1", route_class=JsonRoute, tags=["openai"], responses=DOCUMENTED_ERRORS
    )
    streamed: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

    @router.post("/chat/completions", response_model=ChatCompletion, responses=streamed)
    async def post_chat(
        request: Request, caller: CallerOf, body: ChatBody
    ) -> ChatCompletion | Response:
        """Answer the last message of a chat, after the turns before it."""
        model = await find_model(asking.publishers, caller, body.model)
        chunks = ChatChunks(model.id, include_usage=body.stream_options.include_usage)
        answer = await asking.ask(request, caller, body.query(model.owned_by), chunks)
        if isinstance(answer, QueryAnswer):
            return ChatCompletion.of(answer, model.id, int(time.time()))
        return answer

    @router.post("/responses", response_model=ResponseDocument, responses=streamed)
    async def post_response(
        request: Request, caller: CallerOf, body: ResponsesBody
    ) -> ResponseDocument | Response:
        """Answer a text, or the last message of a conversation. Nothing is kept."""
        model = await find_model(asking.publishers, caller, body.model)
        events = ResponseEvents(body, model.id)
        answer = await asking.ask(request, caller, body.query(model.owned_by), events)
        if isinstance(answer, QueryAnswer):
            begun = ResponseDocument.begin(body, answer.session_id, model.id, int(time.time()))
            return begun.end(answer)
        return answer

    @router.get("/models")
    async def get_models(caller: CallerOf) -> ModelList:
        """The publishers that the caller may ask, and their models."""
        return ModelList(object="list", data=await list_models(asking.publishers, caller))

    @router.get("/models/{model:path}")
    async def get_model(caller: CallerOf, model: str) -> ModelEntry:
        """A publisher and its model."""
        return choose_model(await list_models(asking.publishers, caller), model)

    return router
