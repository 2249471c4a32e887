"""Fields that bodies of requests are made of: names that are checked, and groups of settings."""

from dataclasses import field
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict
from pydantic.dataclasses import dataclass

from fedattn.core.asked import query_codec_by_name
from fedattn.core.codecs import CODEC_NAMES, DEFAULT_CODEC, codec_by_name
from fedattn.core.compression import SETTINGS_FIELDS, Compression, RowSettings
from fedattn.core.limits import described, limited
from fedattn.core.node_id import check_node_id
from fedattn.core.plans import PlanSpec
from fedattn.core.profile import CompressionWish
from fedattn.core.sampling import MAX_STOP_LENGTH, MAX_STOP_STRINGS, SamplingParams
from fedattn.core.selection import SELECTOR_NAMES, check_selector
from fedattn.core.turns import Turn

AUTO = "auto"
"""Leaves a choice to the profile of the model."""
_BODY = ConfigDict(extra="forbid")


def _check_codec(name: str) -> str:
    codec_by_name(name)
    return name


def _check_query_codec(name: str) -> str:
    query_codec_by_name(name)
    return name


NodeId = Annotated[str, AfterValidator(check_node_id)]
PlanText = Annotated[str, AfterValidator(lambda text: PlanSpec(text).text)]
CodecName = Annotated[str, AfterValidator(_check_codec)]
QueryCodecName = Annotated[str, AfterValidator(_check_query_codec)]
SelectorName = Annotated[
    str, AfterValidator(lambda name: name if name == AUTO else check_selector(name))
]


@dataclass(frozen=True, slots=True, kw_only=True, config=_BODY)
class SamplingBody(SamplingParams):
    """How the publisher chooses tokens; the default is greedy."""

    stop: tuple[str, ...] = field(
        default=(),
        metadata={
            "description": f"Decoding ends before any of these, each 1 to {MAX_STOP_LENGTH} "
            "characters.",
            "examples": [["\n"]],
            "json_schema_extra": {"maxItems": MAX_STOP_STRINGS},
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True, config=_BODY)
class CompressionBody(RowSettings):
    """What contributors leave out of their KV rows, and how they write the rest.

    What is left open is as the profile of the model at the publisher's node says.
    """

    codec: CodecName = described(
        DEFAULT_CODEC,
        f"How KV rows are written: {', '.join(CODEC_NAMES)}. auto: as the profile says.",
        choices=CODEC_NAMES,
    )
    keep_ratio: float | None = limited(
        None,
        "Share of the computed rows that travel, of all heads at all sync layers together; as the "
        "profile says if absent.",
        0,
        1,
        is_low_excluded=True,
    )
    selector: SelectorName = described(
        AUTO,
        f"Which rows travel if not all: auto, {', '.join(SELECTOR_NAMES)}. auto: learned if there "
        "is a profile.",
        choices=(AUTO, *SELECTOR_NAMES),
    )

    @classmethod
    def of(cls, wish: CompressionWish) -> Self:
        """The body that says a wish."""
        settings = {name: getattr(wish.settings, name) for name in SETTINGS_FIELDS}
        return cls(
            codec=DEFAULT_CODEC if wish.codec is None else wish.codec.name,
            keep_ratio=wish.keep_ratio,
            selector=AUTO if wish.selector is None else wish.selector,
            **settings,
        )

    @property
    def value(self) -> CompressionWish:
        """What it asks for."""
        settings = {name: getattr(self, name) for name in SETTINGS_FIELDS}
        return CompressionWish(
            codec=None if self.codec == DEFAULT_CODEC else codec_by_name(self.codec),
            keep_ratio=self.keep_ratio,
            selector=None if self.selector == AUTO else self.selector,
            settings=Compression(**settings),
        )


@dataclass(frozen=True, slots=True, kw_only=True, config=_BODY)
class TurnBody(Turn):
    """What one speaker said before the question."""

    text: str = field(
        repr=False, metadata={"description": "What was said.", "examples": ["Machine 4."]}
    )
