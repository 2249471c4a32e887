"""What every implementation of the exchange must get right."""

from dataclasses import dataclass

from fedattn.core.plans import PlanSpec
from fedattn.core.spans import PrefixMode, RolePlans, SessionLayout, build_layout
from tests.tiny import NUM_LAYERS, word_tokenizer, words

NUM_NEW_TOKENS = 6
PUBLISHER = "publisher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A session over private texts, given by their lengths in tokens."""

    name: str
    lengths: tuple[int, ...]
    plan: str
    publisher_plan: str
    prefix_mode: PrefixMode = PrefixMode.PUBLIC

    def contexts(self) -> list[str]:
        return [words(11 * index + 5, length) for index, length in enumerate(self.lengths)]

    def node_ids(self) -> list[str]:
        return [f"node-{index}" for index in range(len(self.lengths))]

    def question(self) -> str:
        return words(60, 4)

    def plans(self) -> RolePlans:
        return RolePlans(
            contributors=PlanSpec(self.plan).resolve(NUM_LAYERS),
            publisher=PlanSpec(self.publisher_plan).resolve(NUM_LAYERS),
        )

    def tokens(self) -> tuple[list[int], list[list[int]], list[int]]:
        """Public prefix, contributors' spans, publisher's span."""
        tokenizer = word_tokenizer()
        prefix = tokenizer.prefix()
        spans = [tokenizer.context(text) for text in self.contexts()]
        question = tokenizer.question(self.question())
        if self.prefix_mode is PrefixMode.FIRST:
            return [], [prefix + spans[0], *spans[1:]], question
        return prefix, spans, question

    def layout(self) -> SessionLayout:
        prefix, spans, question = self.tokens()
        lengths = [len(span) for span in spans]
        return build_layout(
            num_layers=NUM_LAYERS,
            prefix_len=len(prefix),
            contributors=list(zip(self.node_ids(), lengths, strict=True)),
            publisher=(PUBLISHER, len(question)),
            plans=self.plans(),
        )

    def joined(self) -> list[int]:
        prefix, spans, question = self.tokens()
        return [*prefix, *(token for span in spans for token in span), *question]


def _scenario(name: str, lengths: tuple[int, ...], plan: str, own: str, first: int = 0) -> Scenario:
    mode = PrefixMode.FIRST if first else PrefixMode.PUBLIC
    return Scenario(name=name, lengths=lengths, plan=plan, publisher_plan=own, prefix_mode=mode)


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
)
