"""The chat template of a tokenizer, cut where private texts go in.

Every node must render the same public prefix, whenever and wherever it does: a template that asks
for the date gets the same one, and one that lets a model think first is told not to.
"""

from dataclasses import dataclass
from datetime import date

from jinja2 import TemplateError

from fedattn.model.hugging_face import PreTrainedTokenizerFast

TODAY = date(2025, 1, 1)
"""What templates are told if they ask: one that changed would change every prefix overnight."""
_MARKS = tuple(f"\x02FEDATTN{number}\x02" for number in range(3))
"""Nothing that a template strips."""
_DIRECTIVES = "aAbBdHjmMSyY"
_DATED = "".join([
    "{%- macro strftime_now(format) -%}{{ format",
    *(f" | replace('%{one}', '{TODAY.strftime('%' + one)}')" for one in _DIRECTIVES),
    " }}{%- endmacro -%}",
])  # fmt: skip
"""Takes the place of the clock that transformers offers to templates (Llama 3.2, SmolLM3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateParts:
    """What a template puts around texts.

    Attributes:
        header: before the first message of the user: the system prompt stands in it.
        end: after the last message of the user, up to where the answer begins.
        to_assistant: between a message of the user and an earlier answer.
        to_user: between an earlier answer and the next message of the user.
    """

    header: str
    end: str
    to_assistant: str
    to_user: str


def template_parts(tokenizer: PreTrainedTokenizerFast, system_prompt: str) -> TemplateParts:
    """Render a conversation of marks, and cut it at them."""
    if not tokenizer.chat_template:
        return TemplateParts(
            header=f"{_start_of_text(tokenizer)}{system_prompt}\n\n",
            end="\nAnswer:",
            to_assistant="\nAnswer: ",
            to_user="\n\n",
        )
    alone, answer, again = _MARKS
    header, _, end = _render_asked(tokenizer, system_prompt, alone).partition(alone)
    after_first, _, after_second = _render_talk(tokenizer).partition(alone)[2].partition(answer)
    return TemplateParts(
        header=header,
        end=end,
        to_assistant=after_first,
        to_user=after_second.partition(again)[0],
    )


def end_of_turn(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The control token that ends an answer in the template; None if none does."""
    if not tokenizer.chat_template:
        return None
    after_answer = _render_talk(tokenizer).partition(_MARKS[1])[2].lstrip()
    token_ids = tokenizer(after_answer, add_special_tokens=False)["input_ids"]
    added = tokenizer.added_tokens_decoder
    first: int | None = next(iter(token_ids), None)
    return first if first is not None and first in added and added[first].special else None


def _start_of_text(tokenizer: PreTrainedTokenizerFast) -> str:
    """The token that a tokenizer begins every text with, as text; empty for none."""
    first = tokenizer("", add_special_tokens=True)["input_ids"][:1]
    return str(tokenizer.bos_token) if first == [tokenizer.bos_token_id] and first[0] else ""


def _render_asked(tokenizer: PreTrainedTokenizerFast, system_prompt: str, question: str) -> str:
    """One question after a system prompt, which some templates refuse and others leave out."""
    try:
        rendered = _render(tokenizer, ("system", system_prompt), ("user", question))
    except TemplateError:
        rendered = ""
    if system_prompt.strip() in rendered:
        return rendered
    return _render(tokenizer, ("user", f"{system_prompt}\n\n{question}"))


def _render_talk(tokenizer: PreTrainedTokenizerFast) -> str:
    first, answer, again = _MARKS
    return _render(tokenizer, ("user", first), ("assistant", answer), ("user", again))


def _render(tokenizer: PreTrainedTokenizerFast, *messages: tuple[str, str]) -> str:
    """What the template makes of roles and texts, up to where the answer begins."""
    chat = [{"role": role, "content": text} for role, text in messages]
    rendered = tokenizer.apply_chat_template(
        chat,
        chat_template=_DATED + str(tokenizer.get_chat_template()),
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,  # Qwen3, SmolLM3
    )
    return str(rendered)
