"""Parameters of OpenAI's API that this network knows, or knows that it cannot follow.

A parameter that clients send by habit is taken, and one that nothing here follows is refused by
name. Null says the same as a parameter left out.
"""

from typing import Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

NO_TOOLS = "an empty list, as no tools are called here"


class OpenAiParameters(BaseModel):
    """An object of parameters."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None}


def only(*allowed: Any, why: str) -> AfterValidator:
    """Takes these values alone; `why` names them, and says why no others: "0, as ..."."""

    def check(value: Any) -> Any:
        if value not in allowed:
            raise PydanticCustomError("unsupported", "only {why}", {"why": why})
        return value

    return AfterValidator(check)


def ignored(why: str) -> Any:
    """A field whose value changes nothing here."""
    return Field(None, description=f"Taken, and of no effect: {why}.")
