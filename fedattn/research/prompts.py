"""A case as one joined prompt, with who owns which tokens."""

from dataclasses import dataclass

from fedattn.core.plans import RolePlans, shared_plan
from fedattn.core.spans import SessionLayout, build_layout
from fedattn.model.prompt import PromptTokenizer
from fedattn.research.tasks.cases import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A joined prompt and the answer whose likelihood is looked at.

    Attributes:
        token_ids: public prefix and all spans.
        layout: who owns them.
        answer: at least one token id that follows.
    """

    token_ids: list[int]
    layout: SessionLayout
    answer: list[int]


def tokenize_case(
    case: Case, tokenizer: PromptTokenizer, num_layers: int, plans: RolePlans | None = None
) -> Prompt:
    """The joined prompt of a case, followed by its given answer.

    Args:
        case: the case.
        tokenizer: cuts it.
        num_layers: blocks of the model.
        plans: of the layout; None where they do not matter.
    """
    prefix = tokenizer.prefix()
    spans = [tokenizer.context(text) for text in case.contexts]
    question = tokenizer.question(case.question)
    layout = build_layout(
        num_layers=num_layers,
        prefix_len=len(prefix),
        contributors=[(f"contributor-{i + 1}", len(span)) for i, span in enumerate(spans)],
        publisher=("publisher", len(question)),
        plans=plans or shared_plan(()),
    )
    joined = [*prefix, *(token for span in spans for token in span), *question]
    return Prompt(token_ids=joined, layout=layout, answer=tokenizer.plain(case.answer))
