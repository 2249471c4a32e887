"""Chat templates as families write them: thinking off, one date, no system role, stop tokens."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import GenerationConfig, PreTrainedTokenizerFast

from fedattn.core.turns import Speaker, Turn
from fedattn.model.loading import load_model, load_tokenizer
from fedattn.model.prepare import prepare_model
from fedattn.model.prompt import PromptTokenizer
from fedattn.model.template import end_of_turn
from tests.harness.tiny import save_tiny_model

CHATML = (
    "{%- for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- endfor %}{{ '<|im_start|>assistant\n' }}"
)
THINKING = (
    CHATML + "{%- if enable_thinking is defined and not enable_thinking %}"
    "{{ '<think>\n\n</think>\n\n' }}{%- endif %}"
)
DATED = "{{ 'Today: ' + strftime_now('%d %B %Y') + '\n' }}" + CHATML
TURN = "<|im_start|>"
STRICT = (
    "{%- for m in messages %}"
    "{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{%- endif %}"
    "{{ TURN + m.role + '\n' + (m.content | trim) + '<|im_end|>\n' }}"
    "{%- endfor %}{{ TURN + 'model\n' }}"
).replace("TURN", f"'{TURN}'")
FORGETFUL = (
    "{%- for m in messages %}{%- if m.role == 'user' %}"
    "{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n<|im_start|>assistant\n' }}"
    "{%- elif m.role == 'assistant' %}{{ m.content + '<|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}"
)


def tokenizer_with(folder: Path, template: str | None, **settings: Any) -> PreTrainedTokenizerFast:
    """The tiny byte-level tokenizer with control tokens and a template."""
    save_tiny_model(folder, **settings)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokens = [AddedToken(one, special=True) for one in (TURN, "<|im_end|>")]
    tokenizer.add_special_tokens({"extra_special_tokens": tokens})
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


def text_of(prompt: PromptTokenizer, token_ids: list[int]) -> str:
    return str(prompt.tokenizer.decode(token_ids))


@pytest.mark.parametrize(
    ("template", "prefix", "end"),
    [
        (
            THINKING,
            "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
        (
            DATED,
            "Today: 01 January 2025\n<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant\n",
        ),
        (STRICT, "<|im_start|>user\nS\n\n", "<|im_end|>\n<|im_start|>model\n"),
        (FORGETFUL, "<|im_start|>user\nS\n\n", "<|im_end|>\n<|im_start|>assistant\n"),
        (None, "S\n\n", "\nAnswer:"),
    ],
    ids=["thinking", "date", "no system role", "system dropped", "no template"],
)
def test_what_stands_around_private_texts(
    template: str | None, prefix: str, end: str, tmp_path: Path
) -> None:
    prompt = PromptTokenizer(tokenizer_with(tmp_path, template), "S")
    assert text_of(prompt, prompt.prefix()) == prefix
    assert text_of(prompt, prompt.question("Why?")) == "Why?" + end


def test_earlier_answers_carry_no_thoughts(tmp_path: Path) -> None:
    prompt = PromptTokenizer(tokenizer_with(tmp_path, THINKING), "S")
    turns = [Turn(speaker=Speaker.USER, text="Who?"), Turn(speaker=Speaker.ASSISTANT, text="Me.")]
    said = text_of(prompt, prompt.question("Why?", turns=turns))
    assert said.startswith(
        "Who?<|im_end|>\n<|im_start|>assistant\nMe.<|im_end|>\n<|im_start|>user\nWhy?"
    )


def test_a_text_of_a_model_without_template_begins_as_its_tokenizer_begins_texts(
    tmp_path: Path,
) -> None:
    tokenizer = tokenizer_with(tmp_path, None)
    tokenizer.bos_token = TURN
    tokenizer.add_bos_token = True
    tokenizer.update_post_processor()
    prompt = PromptTokenizer(tokenizer, "S")
    assert text_of(prompt, prompt.prefix()) == "<|im_start|>S\n\n"


@pytest.mark.parametrize("template", [THINKING, STRICT, FORGETFUL])
def test_an_answer_ends_where_the_template_ends_a_turn(template: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(tmp_path, template)
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")


@pytest.mark.parametrize("template", [None, "{% for m in messages %}{{ m.content }}.{% endfor %}"])
def test_a_template_without_control_tokens_ends_no_answer(
    template: str | None, tmp_path: Path
) -> None:
    assert end_of_turn(tokenizer_with(tmp_path, template)) is None


def test_a_prepared_model_stops_at_the_end_of_a_turn_and_of_a_text(tmp_path: Path) -> None:
    tokenizer_with(tmp_path / "m", CHATML, vocab_size=310)
    GenerationConfig(eos_token_id=7).save_pretrained(tmp_path / "m")
    prepared = prepare_model(str(tmp_path / "m"), cache_dir=tmp_path / "c")
    end = load_tokenizer(prepared).convert_tokens_to_ids("<|im_end|>")
    assert load_model(prepared).end_token_ids == {7, end}
