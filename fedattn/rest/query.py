"""Bodies of requests. Making one checks it: whoever holds a body holds a good one.

What a core value limits is documented and checked by that value; only what stands in no core value
is limited here.
"""

from dataclasses import replace
from typing import Annotated, Self

from pydantic import Field, model_validator

from fedattn.core.errors import EmptyQuestionError, InvalidRequestError
from fedattn.core.limits import MAX_QUESTION_LENGTH, MAX_TOPIC_LENGTH
from fedattn.core.request import SessionOptions
from fedattn.core.share import Share
from fedattn.core.turns import MAX_TURNS, MAX_TURNS_LENGTH, check_turns
from fedattn.rest.fields import SamplingBody, TurnBody
from fedattn.rest.session import SessionBody


class AskBody(SessionBody):
    """How a question is asked, whatever it is."""

    share: Share | None = Field(
        None,
        strict=False,
        description="What contributors may know of the question, to choose what takes part of "
        "their texts: nothing, the topic given here, or the question. It is sealed to each of "
        "them; the aggregator learns none of it. Default: as the gateway is set.",
        examples=["question"],
    )
    topic: str = Field(
        "",
        max_length=MAX_TOPIC_LENGTH,
        description="Words that contributors are told instead of the question, if share is topic.",
        examples=["pump pressure alarms"],
    )
    min_support: Annotated[float, Field(allow_inf_nan=False)] = Field(
        0.0,
        ge=0,
        le=1,
        description="Least support of an answer that counts as supported by the texts.",
        examples=[0.3],
    )
    reuse: bool = Field(
        True,
        description="Whether rows cached since earlier queries are used; the answer is the same.",
    )
    retry: bool = Field(
        True,
        description="Whether the query is put once more, without the nodes that were lost, if it "
        "fails for them before its first token and there is time left. Never once a person's "
        "approval was spent, and with another publisher only where none was named.",
    )
    timeline: bool = Field(
        False, description="Whether the report tells what every participant did when."
    )

    @property
    def options(self) -> SessionOptions:
        """What it says about its session."""
        share = Share.NOTHING if self.share is None else self.share
        return replace(super().options, reuse=self.reuse, wants_timeline=self.timeline, share=share)

    @model_validator(mode="after")
    def _check_topic(self) -> Self:
        """Check that words go with the topic they are, and only with it."""
        is_told = bool(self.topic.strip())
        if is_told != (self.share is Share.TOPIC):
            raise InvalidRequestError(
                "share topic and the words of the topic go together; give both or neither"
            )
        return self


class QueryBody(AskBody):
    """A collaborative query."""

    question: str = Field(
        description="The question. It goes to the publisher's node, to contributors if `share` "
        "says so, and into no log.",
        max_length=MAX_QUESTION_LENGTH,
        examples=["Which machine reported the highest temperature?"],
        json_schema_extra={"minLength": 1},
    )
    turns: list[TurnBody] = Field(
        default_factory=list,
        description="What was said before the question, in order. It goes to the publisher's node, "
        "and what the user said to contributors too, if `share` is question: they choose by it. "
        f"{MAX_TURNS_LENGTH} characters together.",
        max_length=MAX_TURNS,
        examples=[[{"speaker": "user", "text": "Which machine is hot?"}]],
    )
    sampling: SamplingBody = Field(
        default_factory=SamplingBody, description="How to choose tokens."
    )
    stream: bool = Field(
        False, description="Answer with server-sent events instead of one document."
    )
    background: bool = Field(
        False,
        description="Answer at once with a job, whose answer and events are read later.",
    )

    @model_validator(mode="after")
    def _check_question(self) -> Self:
        """Check that something is asked, after no more than may be said before.

        Raises:
            EmptyQuestionError: nothing is asked.
            InvalidRequestError: the turns are too long together, or it is a streamed job.
        """
        if not self.question.strip():
            raise EmptyQuestionError("the question is empty; ask something")
        if self.background and self.stream:
            raise InvalidRequestError(
                "background and stream do not go together; leave stream out, and read the job's "
                "events at /v1/queries/ID/events"
            )
        check_turns(self.turns)
        return self
