"""`/v1/chat/completions`: what is asked and answered."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from fedattn.core.limits import MAX_SEED
from fedattn.core.report import FinishReason
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.openai_fields import OpenAiBody, StopStrings, Tokens
from fedattn.rest.openai_messages import Messages
from fedattn.rest.openai_parameters import NO_TOOLS, OpenAiParameters, only
from fedattn.rest.query import QueryBody

FINISH_REASONS: dict[FinishReason, Literal["stop", "length"]] = {
    FinishReason.END: "stop",
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
}
_NO_PENALTY = "0, as answers have no penalty of this kind"


class StreamOptions(OpenAiParameters):
    """What a stream holds besides the answer."""

    include_usage: bool = Field(False, description="Whether a last chunk counts tokens.")
    include_obfuscation: bool = Field(False, description="Of no effect.")


class ChatBody(OpenAiBody):
    """A chat whose last message is the question."""

    messages: Messages = Field(
        description="The conversation; the last message is the user's, and the question.",
        examples=[[{"role": "user", "content": "Which machine reported the most heat?"}]],
    )
    max_completion_tokens: Tokens | None = Field(
        None, description="Most tokens of the answer; 512 if absent."
    )
    max_tokens: Tokens | None = Field(None, description="Older name of max_completion_tokens.")
    stop: StopStrings = Field(
        default_factory=list, description="The answer ends before any of these."
    )
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="Of the random draw; a new one each time if absent."
    )
    stream_options: StreamOptions = Field(
        default_factory=StreamOptions, description="What a stream holds besides the answer."
    )
    n: Annotated[int, only(1, why="1, as there is one answer to a request")] = Field(
        1, description="1."
    )
    frequency_penalty: Annotated[float, only(0, why=_NO_PENALTY)] = Field(0, description="0.")
    presence_penalty: Annotated[float, only(0, why=_NO_PENALTY)] = Field(0, description="0.")
    logprobs: Annotated[bool, only(False, why="false, as no probabilities are told")] = Field(
        False, description="false."
    )
    logit_bias: Annotated[
        dict[str, Any], only({}, why="an empty object, as tokens have no bias here")
    ] = Field(default_factory=dict, description="Empty.")
    response_format: Annotated[
        dict[str, Any], only({"type": "text"}, why="type text, as answers have no other form here")
    ] = Field(default={"type": "text"}, description="Of type text.")
    modalities: Annotated[
        list[str], only(["text"], why="text, as answers have no other form here")
    ] = Field(default=["text"], description="Text alone.")
    functions: Annotated[list[Any], only([], why=NO_TOOLS)] = Field(
        default_factory=list, description="Empty."
    )

    def query(self, publisher: str) -> QueryBody:
        """The query it comes to.

        Raises:
            InvalidInputError: nothing is asked, or too much is said.
        """
        max_tokens = self.max_completion_tokens or self.max_tokens
        return self.ask(publisher, self.messages, max_tokens, tuple(self.stop), self.seed)


class Usage(BaseModel):
    """Tokens of a completion."""

    prompt_tokens: int = Field(description="Of the global prompt.", examples=[212])
    completion_tokens: int = Field(description="Of the answer.", examples=[9])
    total_tokens: int = Field(description="Of both.", examples=[221])

    @classmethod
    def of(cls, answer: QueryAnswer) -> "Usage":
        """Of an answer."""
        prompt, completion = answer.prompt_tokens, answer.num_tokens
        return cls(
            prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
        )


class ChatMessage(BaseModel):
    """What the assistant says."""

    role: Literal["assistant"] = Field(description="Always assistant.", examples=["assistant"])
    content: str = Field(description="The answer.", examples=["Machine 4, with 91 degrees."])


class ChatChoice(BaseModel):
    """The only answer."""

    index: int = Field(description="Always 0.", examples=[0])
    message: ChatMessage = Field(description="What the assistant says.")
    finish_reason: Literal["stop", "length"] = Field(
        description="stop: the model ended, or a stop string came; length: max_tokens.",
        examples=["stop"],
    )


class ChatCompletion(BaseModel):
    """An answer as one document."""

    id: str = Field(
        description="Of the session.", examples=["chatcmpl-5f2b7c1e9a0d4e3f8b6a1c2d3e4f5a6b"]
    )
    object: Literal["chat.completion"] = Field(
        description="Kind of the document.", examples=["chat.completion"]
    )
    created: int = Field(description="Seconds since the epoch.", examples=[1767225600])
    model: str = Field(description="Its id.", examples=["publisher/SmolLM2-135M-Instruct"])
    choices: list[ChatChoice] = Field(description="One.")
    usage: Usage = Field(description="Tokens.")
    fedattn: QueryAnswer = Field(description="How the answer came about.")

    @classmethod
    def of(cls, answer: QueryAnswer, model: str, created: int) -> "ChatCompletion":
        """An answer to a chat."""
        choice = ChatChoice(
            index=0,
            message=ChatMessage(role="assistant", content=answer.answer),
            finish_reason=FINISH_REASONS[answer.finish_reason],
        )
        return cls(
            id=f"chatcmpl-{answer.session_id}",
            object="chat.completion",
            created=created,
            model=model,
            choices=[choice],
            usage=Usage.of(answer),
            fedattn=answer,
        )
