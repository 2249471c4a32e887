"""Every error as an RFC 9457 problem document."""

from pydantic import BaseModel, Field

MEDIA_TYPE = "application/problem+json"


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    field: str = Field(description="Path of the field.", examples=["sampling.top_k"])
    expected: str = Field(description="What the field takes.", examples=["a whole number"])
    got: str = Field(description="What came; free text is never repeated.", examples=["null"])


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(
        description="Stable URN of the kind of error.",
        examples=["urn:fedattn:error:invalid_plan"],
    )
    title: str = Field(description="The kind of error for people.", examples=["Invalid plan"])
    status: int = Field(description="HTTP status.", examples=[422])
    detail: str = Field(
        description="This error for people: expected, got, remedy.",
        examples=["unknown sync plan 'often'; use all, none, auto, uniform:INTERVAL, or a list"],
    )
    code: str = Field(description="Stable code of the kind.", examples=["invalid_plan"])
    instance: str = Field(
        description="URN of this occurrence; the gateway's log carries it too.",
        examples=["urn:uuid:7c3b7a3e-0d6c-4a0e-9f4c-2b1f0e6d5a11"],
    )
    errors: list[FieldError] | None = Field(
        None, description="The fields that are wrong, if the request does not fit the schema."
    )
