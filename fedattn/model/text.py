"""From token ids to text as they are decoded, without decoding all of them at every token."""

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_INVALID_PREFIX = "Invalid prefix"  # of the only error DecodeStream has for token ids


def whole_text(tokenizer: Tokenizer, token_ids: list[int]) -> str:
    """Text of token ids, without control tokens and without half a character at the end."""
    return str(tokenizer.decode(token_ids, skip_special_tokens=True)).rstrip(_REPLACEMENT)


class Detokenizer:
    """Text of one answer, token by token; all pieces joined are `whole_text`.

    A character that needs several tokens comes with the last of them.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._restart([])

    def push(self, token: int) -> str:
        """Text that one more token makes certain."""
        try:
            piece = self._stream.step(self._tokenizer, token) or ""
        except Exception as error:  # the library raises no narrower one
            if not str(error).startswith(_INVALID_PREFIX):
                raise
            return self._skip_broken_bytes(token)
        self._ids.append(token)
        if piece:
            self._num_certain = len(self._ids)
            self._num_chars += len(piece)
        return piece

    def finish(self) -> str:
        """What was held back, once no more tokens come; never half a character."""
        return whole_text(self._tokenizer, self._ids)[self._num_chars :]

    def _skip_broken_bytes(self, token: int) -> str:
        """Bytes that are no UTF-8 would change text that was handed out: begin behind them."""
        held = [*self._ids[self._num_certain :], token]
        self._restart([token])
        return str(self._tokenizer.decode(held, skip_special_tokens=True))

    def _restart(self, ids: list[int]) -> None:
        self._stream = DecodeStream(ids=ids, skip_special_tokens=True)
        self._ids = ids
        self._num_certain = len(ids)
        self._num_chars = len(self._tokenizer.decode(ids, skip_special_tokens=True))


class TextStream:
    """Turns tokens into text pieces, holding back what a stop string could still take away."""

    def __init__(self, detokenizer: Detokenizer, stop: tuple[str, ...]) -> None:
        self._detokenizer = detokenizer
        self._stop = stop
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """New text that is certain after one more token; sets `stopped` at a stop string."""
        self._held += self._detokenizer.push(token)
        return self._release(self._doubtful())

    def finish(self) -> str:
        """What was held back, once no more tokens come."""
        if self.stopped:
            return ""
        self._held += self._detokenizer.finish()
        return self._release(0)

    def _release(self, num_doubtful: int) -> str:
        """Text before a stop string, or else all that is not doubtful."""
        cut = min((at for at in map(self._held.find, self._stop) if at >= 0), default=-1)
        self.stopped = cut >= 0
        certain = cut if self.stopped else len(self._held) - num_doubtful
        piece, self._held = self._held[:certain], self._held[certain:]
        return piece

    def _doubtful(self) -> int:
        """Length of the tail that may begin a stop string."""
        return max(
            (
                size
                for stop in self._stop
                for size in range(1, len(stop))
                if self._held.endswith(stop[:size])
            ),
            default=0,
        )
