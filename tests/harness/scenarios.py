"""What every implementation of the exchange must get right."""

from dataclasses import dataclass, field

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.plans import PlanSpec, RolePlans
from fedattn.core.spans import PrefixMode, SessionLayout, build_layout
from fedattn.model.prompt import PromptTokenizer
from tests.harness.tiny import NUM_LAYERS, word_tokenizer, words

NUM_NEW_TOKENS = 6
PUBLISHER = "publisher"
LOSSLESS = Compression(codec=codec_by_name("fp32"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A session over private texts."""

    name: str
    contexts: tuple[str, ...]
    plan: str
    publisher_plan: str
    question: str = words(60, 4)
    prefix_mode: PrefixMode = PrefixMode.PUBLIC
    num_layers: int = NUM_LAYERS
    tokenizer: PromptTokenizer = field(default_factory=word_tokenizer)
    compression: Compression = LOSSLESS
    independent: bool = False
    asked: tuple[int, ...] = ()
    asked_plan: str = "none"

    def node_ids(self) -> list[str]:
        return [f"node-{index}" for index in range(len(self.contexts))]

    def plans(self) -> RolePlans:
        return RolePlans(
            contributors=PlanSpec(self.plan).resolve(self.num_layers),
            publisher=PlanSpec(self.publisher_plan).resolve(self.num_layers),
            asked=PlanSpec(self.asked_plan).resolve(self.num_layers),
        )

    def tokens(self) -> tuple[list[int], list[list[int]], list[int]]:
        """Public prefix, contributors' spans, publisher's span."""
        prefix = self.tokenizer.prefix()
        spans = [self.tokenizer.context(text) for text in self.contexts]
        question = self.tokenizer.question(self.question)
        if self.prefix_mode is PrefixMode.FIRST:
            return [], [prefix + spans[0], *spans[1:]], question
        return prefix, spans, question

    def layout(self) -> SessionLayout:
        prefix, spans, question = self.tokens()
        lengths = [len(span) for span in spans]
        return build_layout(
            num_layers=self.num_layers,
            prefix_len=len(prefix),
            contributors=list(zip(self.node_ids(), lengths, strict=True)),
            publisher=(PUBLISHER, len(question)),
            plans=self.plans(),
            compression=self.compression,
            independent=self.independent,
            asked=[self.node_ids()[index] for index in self.asked],
        )

    def joined(self) -> list[int]:
        prefix, spans, question = self.tokens()
        return [*prefix, *(token for span in spans for token in span), *question]


def context_words(*lengths: int) -> tuple[str, ...]:
    """One context a length, each of other tokens."""
    return tuple(words(11 * index + 5, length) for index, length in enumerate(lengths))


def _scenario(name: str, lengths: tuple[int, ...], plan: str, own: str, first: int = 0) -> Scenario:
    mode = PrefixMode.FIRST if first else PrefixMode.PUBLIC
    return Scenario(
        name=name, contexts=context_words(*lengths), plan=plan, publisher_plan=own, prefix_mode=mode
    )


SCENARIOS = (
    _scenario("two participants, all", (9,), "all", "all"),
    _scenario("three participants, all", (9, 4), "all", "all"),
    _scenario("four participants, none", (5, 8, 3), "none", "none"),
    _scenario("four uneven participants, uniform", (13, 1, 6), "uniform:2", "uniform:2"),
    _scenario("five participants, auto", (3, 4, 5, 6), "auto", "auto"),
    _scenario("contributors alone, publisher everywhere", (7, 9, 4), "none", "all"),
    _scenario("contributors everywhere, publisher seldom", (7, 9, 4), "all", "3"),
    _scenario("mixed plans", (6, 7, 8), "1,3", "2-4"),
    _scenario("one empty contributor", (6, 0, 5), "all", "all"),
    _scenario("first and only contributors empty", (0, 0), "all", "all"),
    _scenario("the first owns the prefix", (6, 5), "uniform:2", "1,2", first=1),
    _scenario("the first owns the prefix, all", (6, 5), "all", "all", first=1),
    Scenario(
        name="independent contributors",
        contexts=context_words(6, 7, 4),
        plan="none",
        publisher_plan="1-4",
        independent=True,
    ),
    Scenario(
        name="independent contributors, one of them empty, publisher everywhere",
        contexts=context_words(5, 0, 8),
        plan="none",
        publisher_plan="all",
        independent=True,
    ),
)
"""Rows travel; whatever decodes has them all."""

ASKED_SCENARIOS = (
    Scenario(
        name="one of three is asked",
        contexts=context_words(6, 9, 4),
        plan="all",
        publisher_plan="all",
        asked=(1,),
        asked_plan="1,3,4",
    ),
    Scenario(
        name="all are asked, uneven and one of them empty",
        contexts=context_words(13, 0, 1),
        plan="all",
        publisher_plan="all",
        asked=(0, 1, 2),
        asked_plan="0-3",
    ),
    Scenario(
        name="independent contributors, two of them asked",
        contexts=context_words(6, 7, 4),
        plan="none",
        publisher_plan="1-4",
        independent=True,
        asked=(0, 2),
        asked_plan="2,4",
    ),
)
"""Rows of some stay with them, and are asked for in decoding too."""
