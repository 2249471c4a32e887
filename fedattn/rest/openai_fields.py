"""What both ways to ask in OpenAI's API have in common."""

from secrets import randbelow
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from fedattn.core.errors import InvalidRequestError
from fedattn.core.limits import MAX_SEED
from fedattn.core.sampling import MAX_NEW_TOKENS, MAX_STOP_LENGTH, MAX_STOP_STRINGS, SamplingParams
from fedattn.rest.faults import checked
from fedattn.rest.fields import SamplingBody
from fedattn.rest.openai_messages import Message, split_messages
from fedattn.rest.openai_parameters import NO_TOOLS, OpenAiParameters, ignored, only
from fedattn.rest.query import AskBody, QueryBody

DEFAULT_MAX_TOKENS = 512
"""Tokens of an answer whose length the client does not bound."""
_MAX_MODEL_LENGTH = 256


class FederationBody(AskBody):
    """How this network answers: the fields of a query that OpenAI's API has no words for."""

    @model_validator(mode="after")
    def _check_publisher(self) -> Self:
        """Raise InvalidRequestError if it names a publisher."""
        if self.publisher is not None:
            raise InvalidRequestError("fedattn.publisher: the model names it; leave it out")
        return self


class OpenAiBody(OpenAiParameters):
    """What both ways to ask have in common."""

    model: str = Field(
        description="Id of `/v1/models`, or of a publisher alone.",
        min_length=1,
        max_length=_MAX_MODEL_LENGTH,
        examples=["publisher/SmolLM2-135M-Instruct"],
    )
    stream: bool = Field(False, description="Answer with server-sent events.")
    temperature: Annotated[float, Field(allow_inf_nan=False)] = Field(
        SamplingParams().temperature, ge=0, le=10, description="0 is greedy."
    )
    top_p: Annotated[float, Field(allow_inf_nan=False)] = Field(
        SamplingParams().top_p,
        ge=1e-6,
        le=1,
        description="Smallest set of tokens with this probability mass.",
    )
    fedattn: FederationBody = Field(
        default_factory=FederationBody, description="How this network answers."
    )
    tools: Annotated[list[Any], only([], why=NO_TOOLS)] = Field(
        default_factory=list, description="Empty."
    )
    tool_choice: Annotated[
        Any, only("none", "auto", why="none or auto, as no tools are called here")
    ] = Field("auto", description="none or auto.")
    top_logprobs: Annotated[int, only(0, why="0, as no probabilities are told")] = Field(
        0, description="0."
    )
    parallel_tool_calls: bool | None = ignored("no tools are called")
    store: bool | None = ignored("nothing is kept")
    metadata: dict[str, str] | None = ignored("nothing is kept")
    user: str | None = ignored("who asks is who signed in, or `fedattn.subject`")
    safety_identifier: str | None = ignored("nothing is kept")
    prompt_cache_key: str | None = ignored("what is cached depends on the texts")
    prompt_cache_retention: str | None = ignored("nodes decide it")
    service_tier: str | None = ignored("there is one")

    def ask(
        self,
        publisher: str,
        messages: list[Message],
        max_tokens: int | None,
        stop: tuple[str, ...] = (),
        seed: int | None = None,
    ) -> QueryBody:
        """The query it comes to.

        Raises:
            InvalidInputError: nothing is asked, or too much is said.
        """
        sampling = SamplingBody(
            max_new_tokens=max_tokens or DEFAULT_MAX_TOKENS,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=stop,
            seed=randbelow(MAX_SEED) if seed is None else seed,
        )
        question, turns = split_messages(messages)
        how = {name: getattr(self.fedattn, name) for name in self.fedattn.model_fields_set}
        return checked(
            QueryBody,
            **how | {"publisher": publisher},
            question=question,
            turns=turns,
            sampling=sampling,
            stream=self.stream,
        )


def _listed(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


Tokens = Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)]
StopStrings = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]],
    Field(max_length=MAX_STOP_STRINGS),
    BeforeValidator(_listed, json_schema_input_type=str | list[str]),
]
