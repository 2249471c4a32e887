"""`/v1/responses`: what is asked and answered, in text."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from fedattn.core.report import FinishReason
from fedattn.rest.answers import QueryAnswer
from fedattn.rest.openai_fields import OpenAiBody, Tokens
from fedattn.rest.openai_messages import Message, TextOrMessages
from fedattn.rest.openai_parameters import OpenAiParameters, only
from fedattn.rest.query import QueryBody

Status = Literal["in_progress", "completed", "incomplete", "failed"]
_NO_MEMORY = "null, as no answer is kept here; send earlier turns in input"


class ResponseStreamOptions(OpenAiParameters):
    """What a stream holds besides the answer."""

    include_obfuscation: bool = Field(False, description="Of no effect.")


class ResponsesBody(OpenAiBody):
    """A text, or a conversation whose last message is the question."""

    input: TextOrMessages = Field(
        description="The question, or a conversation whose last message is the user's.",
        examples=["Which machine reported the most heat?"],
    )
    instructions: str | None = Field(None, description="A system turn before all others.")
    max_output_tokens: Tokens | None = Field(
        None, description="Most tokens of the answer; 512 if absent."
    )
    stream_options: ResponseStreamOptions = Field(
        default_factory=ResponseStreamOptions, description="Of no effect."
    )
    text: Annotated[
        dict[str, Any],
        only(
            {}, {"format": {"type": "text"}}, why="format text, as answers have no other form here"
        ),
    ] = Field(default_factory=dict, description="Of format text.")
    include: Annotated[
        list[Any], only([], why="an empty list, as there is nothing more to include")
    ] = Field(default_factory=list, description="Empty.")
    truncation: Annotated[
        str, only("disabled", why="disabled, as what is too long is refused, not cut")
    ] = Field("disabled", description="disabled.")
    background: Annotated[
        bool, only(False, why="false, as who asks waits for the answer, or streams it")
    ] = Field(False, description="false.")
    previous_response_id: Annotated[Any, only(None, why=_NO_MEMORY)] = Field(
        None, description="Absent."
    )
    conversation: Annotated[Any, only(None, why=_NO_MEMORY)] = Field(None, description="Absent.")

    def query(self, publisher: str) -> QueryBody:
        """The query it comes to.

        Raises:
            InvalidInputError: nothing is asked, or too much is said.
        """
        system = [Message(role="system", content=self.instructions)] if self.instructions else []
        return self.ask(publisher, [*system, *self.input], self.max_output_tokens)


class InputDetails(BaseModel):
    """Of the tokens read."""

    cached_tokens: int = Field(description="Not counted: always 0.", examples=[0])
    cache_write_tokens: int = Field(description="Not counted: always 0.", examples=[0])


class OutputDetails(BaseModel):
    """Of the tokens written."""

    reasoning_tokens: int = Field(description="Not counted: always 0.", examples=[0])


class ResponseUsage(BaseModel):
    """Tokens of a response."""

    input_tokens: int = Field(description="Of the global prompt.", examples=[212])
    input_tokens_details: InputDetails = Field(description="Of the tokens read.")
    output_tokens: int = Field(description="Of the answer.", examples=[9])
    output_tokens_details: OutputDetails = Field(description="Of the tokens written.")
    total_tokens: int = Field(description="Of both.", examples=[221])

    @classmethod
    def of(cls, answer: QueryAnswer) -> "ResponseUsage":
        """Of an answer."""
        return cls(
            input_tokens=answer.prompt_tokens,
            input_tokens_details=InputDetails(cached_tokens=0, cache_write_tokens=0),
            output_tokens=answer.num_tokens,
            output_tokens_details=OutputDetails(reasoning_tokens=0),
            total_tokens=answer.prompt_tokens + answer.num_tokens,
        )


class OutputText(BaseModel):
    """The text of the answer."""

    type: Literal["output_text"] = Field(description="Its kind.", examples=["output_text"])
    text: str = Field(description="The answer.", examples=["Machine 4, with 91 degrees."])
    annotations: list[Any] = Field(description="Always empty.", examples=[[]])
    logprobs: list[Any] = Field(description="Always empty.", examples=[[]])

    @classmethod
    def of(cls, text: str) -> "OutputText":
        """The part of a text."""
        return cls(type="output_text", text=text, annotations=[], logprobs=[])


class OutputMessage(BaseModel):
    """What the assistant says."""

    id: str = Field(description="Of the message.", examples=["msg_5f2b7c1e9a0d4e3f"])
    type: Literal["message"] = Field(description="Its kind.", examples=["message"])
    status: Status = Field(description="How far it is.", examples=["completed"])
    role: Literal["assistant"] = Field(description="Always assistant.", examples=["assistant"])
    content: list[OutputText] = Field(description="One part.")


class Incomplete(BaseModel):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens"] = Field(
        description="The only one there is.", examples=["max_output_tokens"]
    )


class ResponseError(BaseModel):
    """What ended a response."""

    code: str = Field(description="Stable code of the error.", examples=["session_aborted"])
    message: str = Field(description="For people.", examples=["node-a vanished; ask again"])


class ResponseDocument(BaseModel):
    """An answer as one document, or what is known of it while it is made."""

    id: str = Field(description="Of the session.", examples=["resp_5f2b7c1e9a0d4e3f"])
    object: Literal["response"] = Field(
        default="response", description="Kind of the document.", examples=["response"]
    )
    created_at: int = Field(description="Seconds since the epoch.", examples=[1767225600])
    model: str = Field(description="Its id.", examples=["publisher/SmolLM2-135M-Instruct"])
    status: Status = Field(default="in_progress", description="How far it is.")
    output: list[OutputMessage] = Field(default_factory=list, description="At most one message.")
    incomplete_details: Incomplete | None = Field(None, description="Why it is not whole.")
    error: ResponseError | None = Field(None, description="What ended it.")
    usage: ResponseUsage | None = Field(None, description="Tokens; null until it is answered.")
    instructions: str | None = Field(None, description="As asked.")
    max_output_tokens: int | None = Field(None, description="As asked.")
    temperature: float = Field(description="As asked.", examples=[0.0])
    top_p: float = Field(description="As asked.", examples=[1.0])
    metadata: dict[str, str] = Field(default_factory=dict, description="As asked.")
    tools: list[Any] = Field(default_factory=list, description="Always empty.")
    tool_choice: str = Field(default="auto", description="Always auto.")
    parallel_tool_calls: bool = Field(default=False, description="Always false.")
    store: bool = Field(default=False, description="Always false: nothing is kept.")
    truncation: str = Field(default="disabled", description="Always disabled.")
    previous_response_id: None = Field(None, description="Always null.")
    fedattn: QueryAnswer | None = Field(None, description="How the answer came about.")

    @classmethod
    def begin(
        cls, body: ResponsesBody, session_id: str, model: str, now: int
    ) -> "ResponseDocument":
        """A response that has no text yet."""
        return cls(
            id=f"resp_{session_id}",
            created_at=now,
            model=model,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            metadata=body.metadata or {},
        )

    def message(self, text: str | None, status: Status) -> OutputMessage:
        """Its message as far as it is; None before it has any content."""
        return OutputMessage(
            id=self.id.replace("resp_", "msg_"),
            type="message",
            status=status,
            role="assistant",
            content=[] if text is None else [OutputText.of(text)],
        )

    def end(self, answer: QueryAnswer) -> "ResponseDocument":
        """The response once it is answered."""
        is_cut = answer.finish_reason is FinishReason.LENGTH
        status: Status = "incomplete" if is_cut else "completed"
        changes = {
            "status": status,
            "output": [self.message(answer.answer, status)],
            "incomplete_details": Incomplete(reason="max_output_tokens") if is_cut else None,
            "usage": ResponseUsage.of(answer),
            "fedattn": answer,
        }
        return self.model_copy(update=changes)

    def fail(self, code: str, message: str) -> "ResponseDocument":
        """The response once it has failed."""
        error = ResponseError(code=code, message=message)
        return self.model_copy(update={"status": "failed", "error": error})
