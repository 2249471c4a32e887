"""Models and errors as OpenAI's API writes them."""

from typing import Literal

from pydantic import BaseModel, Field

from fedattn.rest.problems import Problem


class ModelEntry(BaseModel):
    """A publisher and the model it runs."""

    id: str = Field(
        description="PUBLISHER/MODEL, for `model` of a request.",
        examples=["publisher/SmolLM2-135M-Instruct"],
    )
    object: Literal["model"] = Field(description="Kind of the document.", examples=["model"])
    created: int = Field(
        description="When the publisher joined, seconds since the epoch.", examples=[1767225600]
    )
    owned_by: str = Field(description="Id of the publisher.", examples=["publisher"])


class ModelList(BaseModel):
    """Who can be asked; the first is who answers by default elsewhere."""

    object: Literal["list"] = Field(description="Kind of the document.", examples=["list"])
    data: list[ModelEntry] = Field(description="The gateway's default first, then by name.")


class OpenAiError(BaseModel):
    """What went wrong."""

    message: str = Field(
        description="For people: expected, got, remedy.",
        examples=["n: only 1, as there is one answer to a request, got 2"],
    )
    type: str = Field(description="Kind of the error.", examples=["invalid_request_error"])
    param: str | None = Field(description="The first parameter that is wrong.", examples=["n"])
    code: str = Field(
        description="Stable code, as in a problem document.", examples=["invalid_request"]
    )


class ErrorEnvelope(BaseModel):
    """An error of these routes."""

    error: OpenAiError = Field(description="What went wrong.")

    @classmethod
    def of(cls, problem: Problem) -> "ErrorEnvelope":
        """A problem in OpenAI's words."""
        error = OpenAiError(
            message=problem.detail,
            type=_kind_of(problem.status),
            param=problem.errors[0].field if problem.errors else None,
            code=problem.code,
        )
        return cls(error=error)


def openai_status(problem: Problem) -> int:
    """Its HTTP status; what OpenAI's clients know of wrong fields is 400."""
    return 400 if problem.status == 422 else problem.status


def _kind_of(status: int) -> str:
    if status >= 500:
        return "server_error"
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return kinds.get(status, "invalid_request_error")
