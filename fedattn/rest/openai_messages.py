"""Messages as clients of OpenAI's API send them: a conversation whose last word is the question."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from fedattn.core.turns import MAX_TURNS, Speaker
from fedattn.rest.fields import TurnBody
from fedattn.rest.openai_parameters import NO_TOOLS, OpenAiParameters, only

_TEXT_PARTS = {"text", "input_text", "output_text"}
_OTHER_PARTS = {"image_url", "input_image", "input_audio", "file", "input_file", "refusal"}
_SPEAKERS = {
    "system": Speaker.SYSTEM,
    "developer": Speaker.SYSTEM,
    "user": Speaker.USER,
    "assistant": Speaker.ASSISTANT,
}


def _join_parts(content: Any) -> Any:
    """The text of a content that may be a list of parts."""
    if isinstance(content, list):
        return "\n".join(_text_of(part) for part in content)
    return content


def _text_of(part: Any) -> str:
    kind, text = (part.get("type"), part.get("text")) if isinstance(part, dict) else (None, None)
    if kind in _TEXT_PARTS and isinstance(text, str):
        return text
    kind = kind if kind in _OTHER_PARTS else "any other kind"
    raise PydanticCustomError(
        "unsupported", "only text or parts of text, as {kind} is not read here", {"kind": kind}
    )


class Message(OpenAiParameters):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="Who speaks.")
    content: Annotated[
        str, BeforeValidator(_join_parts, json_schema_input_type=str | list[dict[str, Any]])
    ] = Field("", description="Text, or parts of type text, input_text or output_text.")
    type: Literal["message"] = Field("message", description="There is no other kind here.")
    tool_calls: Annotated[list[Any], only([], why=NO_TOOLS)] = Field(
        default_factory=list, description="Empty."
    )
    id: Any = Field(None, description="Of no effect.")
    name: Any = Field(None, description="Of no effect.")
    status: Any = Field(None, description="Of no effect.")
    phase: Any = Field(None, description="Of no effect.")
    annotations: Any = Field(None, description="Of no effect.")


def _check_last(messages: list[Message]) -> list[Message]:
    if messages[-1].role != "user":
        raise PydanticCustomError(
            "no_question", "a last message of role user, which is the question"
        )
    return messages


def _as_messages(given: Any) -> Any:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


Messages = Annotated[
    list[Message], Field(min_length=1, max_length=MAX_TURNS + 1), AfterValidator(_check_last)
]
TextOrMessages = Annotated[
    Messages, BeforeValidator(_as_messages, json_schema_input_type=str | list[Message])
]


def split_messages(messages: list[Message]) -> tuple[str, list[TurnBody]]:
    """The question, and what was said before it."""
    turns = [
        TurnBody(speaker=_SPEAKERS[message.role], text=message.content) for message in messages[:-1]
    ]
    return messages[-1].content, turns
