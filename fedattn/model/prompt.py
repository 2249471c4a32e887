"""From texts to token ids: public prefix, contexts, question."""

from collections.abc import Sequence

from fedattn.core.turns import Speaker, Turn
from fedattn.model.hugging_face import PreTrainedTokenizerFast
from fedattn.model.template import template_parts
from fedattn.model.text import Detokenizer, whole_text

DEFAULT_SYSTEM_PROMPT = "You are a helpful assistant. Answer briefly, using the notes given."


class PromptTokenizer:
    """Cuts one chat prompt at the borders of who may know what.

        header                        public prefix, every node computes it
        context + blank line          a contributor's span
        own context + earlier turns + question + end
                                      the publisher's span

    Each piece is tokenized alone, since no node sees its neighbours' text. Private text cannot
    smuggle in control tokens: inside it they are read as plain characters. The template's own
    pieces are tokenized here, once: the choice is a switch inside the tokenizer, which threads
    that tokenize private text share.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, system_prompt: str = DEFAULT_SYSTEM_PROMPT
    ) -> None:
        self.tokenizer = tokenizer
        self.system_prompt = system_prompt
        parts = template_parts(tokenizer, system_prompt)
        self._header = tuple(self._encode(parts.header, private=False))
        self._end = tuple(self._encode(parts.end, private=False))
        self._to_assistant = tuple(self._encode(parts.to_assistant, private=False))
        self._to_user = tuple(self._encode(parts.to_user, private=False))
        self._blank_line = tuple(self._encode("\n\n", private=False))

    def prefix(self) -> list[int]:
        """Token ids of the system prompt and the chat header."""
        return list(self._header)

    def context(self, text: str) -> list[int]:
        """Token ids of a contributor's span; none for an empty text."""
        stripped = text.strip()
        return self._encode(stripped + "\n\n", private=True) if stripped else []

    def context_offsets(self, text: str) -> tuple[str, list[tuple[int, int]]]:
        """Where the tokens of `context` are: the text they were made of, and each one's characters.

        The ranges are half-open. Tokens that share a character share its range.
        """
        stripped = text.strip()
        if not stripped:
            return "", []
        tokenized = stripped + "\n\n"
        encoded = self.tokenizer(
            tokenized,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            return_offsets_mapping=True,
        )
        return tokenized, [(start, stop) for start, stop in encoded["offset_mapping"]]

    def question(
        self, question: str, own_context: str = "", turns: Sequence[Turn] = ()
    ) -> list[int]:
        """Token ids of the publisher's span, up to where the answer begins.

        The contexts stand in the user's first message, which is open already. What the system says
        joins the user's message that it stands in: not every template has a place for it there.
        """
        asked = Turn(speaker=Speaker.USER, text=question)
        return [*self.context(own_context), *self._said([*turns, asked]), *self._end]

    def plain(self, text: str) -> list[int]:
        """Token ids of a text as it is, without any template; also of a given answer."""
        return self._encode(text, private=True)

    def decode(self, token_ids: list[int]) -> str:
        """Text of an answer, without control tokens and without half a character at the end."""
        return whole_text(self.tokenizer.backend_tokenizer, token_ids)

    def detokenizer(self) -> Detokenizer:
        """For the text of one answer, token by token."""
        return Detokenizer(self.tokenizer.backend_tokenizer)

    def _encode(self, text: str, *, private: bool) -> list[int]:
        encoded = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=private,
            return_attention_mask=False,
        )
        return list(encoded["input_ids"])

    def _said(self, turns: Sequence[Turn]) -> list[int]:
        """Tokens of turns, the first in the open message of the user."""
        token_ids: list[int] = []
        was_answer = False
        for index, turn in enumerate(turns):
            is_answer = turn.speaker is Speaker.ASSISTANT
            if is_answer != was_answer:
                token_ids += self._to_assistant if is_answer else self._to_user
            elif index:
                token_ids += self._blank_line
            token_ids += self._encode(turn.text.strip(), private=True)
            was_answer = is_answer
        return token_ids
