"""Decoding the answers of several sessions together, each step one batch."""

import threading
from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from typing import Any

import torch

from fedattn.core.errors import SessionAbortedError
from fedattn.core.sampling import SamplingParams
from fedattn.model.cores import Cores
from fedattn.model.decode import AnswerTokens, Decoder
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import PrefillResult


class _Answer:
    """One answer in the loop.

    Attributes:
        state: of the decoder.
        token: the newest one.
        tokens: chooses the next ones.
        out: tokens as they come; then what ended the answer, None if that is no failure. Holds at
            most the tokens that the answer may have.
        is_wanted: whether anybody still reads them.
    """

    def __init__(self, state: Any, token: int, tokens: AnswerTokens) -> None:
        self.state, self.token, self.tokens = state, token, tokens
        self.out: SimpleQueue[int | BaseException | None] = SimpleQueue()
        self.is_wanted = True

    def extend(self, logits: torch.Tensor) -> bool:
        """Choose the next token by logits [V]; False after the last one."""
        try:
            token = self.tokens.next(logits)
        except Exception as error:  # border: it ends this answer and no other
            self.out.put(error)
            return False
        if token is not None:
            self.token = token
            self.out.put(token)
        if not self.tokens.steps_left:
            self.out.put(None)
        return self.tokens.steps_left > 0


class DecodeLoop:
    """One thread that decodes all answers of a node: every step gives each of them a token.

    An answer joins at the next step after its prefill, and leaves when it ends or nobody reads it
    any more. Nobody waits for a batch to fill: alone an answer is a batch of one. All of them have
    the same pace, so a long answer takes nothing from a short one but what a larger batch costs.

    Args:
        model: the model.
        get_decoder: what runs the blocks; asked for by threads of answers, once their first token,
            which needs none, is out.
        cores: told while answers run, and asked for prefills.
        num_threads: CPU threads to compute on now, while no prefill needs them.
        on_step: told the number of answers of each step.
    """

    def __init__(
        self,
        model: LoadedModel,
        get_decoder: Callable[[], Decoder[Any]],
        *,
        cores: Cores | None = None,
        num_threads: Callable[[], int] = torch.get_num_threads,
        on_step: Callable[[int], object] = lambda _: None,
    ) -> None:
        self._model = model
        self._get_decoder = get_decoder
        self._cores = cores or Cores()
        self._num_threads = num_threads
        self._on_step = on_step
        self._changed = threading.Condition()
        self._joining: list[_Answer] = []
        self._is_closed = False
        self._thread: threading.Thread | None = None

    @property
    def num_joining(self) -> int:
        """Answers that wait for the step that runs to end."""
        return len(self._joining)

    def generate(
        self, prefill: PrefillResult, sampling: SamplingParams
    ) -> Generator[int, None, None]:
        """As `generate_tokens`, together with the other answers.

        Close the iterator to end the answer early.

        Raises:
            SessionAbortedError: the loop was closed.
        """
        tokens = AnswerTokens(self._model, sampling)
        token = tokens.next(prefill.logits)
        if token is None:
            return
        yield token
        if not tokens.steps_left:
            return
        state = self._get_decoder().begin(prefill, tokens.steps_left)
        answer = _Answer(state, token, tokens)
        with self._cores.answering():
            self._join(answer)
            try:
                yield from _read(answer)
            finally:
                answer.is_wanted = False

    def close(self) -> None:
        """End all answers. Returns at once; the thread ends after its step."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _join(self, answer: _Answer) -> None:
        with self._changed:
            if self._is_closed:
                raise _closed()
            self._joining.append(answer)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="decode", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        running: list[_Answer] = []
        while self._take_in(running):
            running = self._step(running)

    def _take_in(self, running: list[_Answer]) -> bool:
        """Add those that have joined, drop those that nobody reads; wait if there are none.

        Returns:
            False once the loop is closed, and all have been told.
        """
        with self._changed:
            self._changed.wait_for(lambda: running or self._joining or self._is_closed)
            running += self._joining
            self._joining.clear()
            if self._is_closed:
                for answer in running:
                    answer.out.put(_closed())
                return False
        running[:] = [answer for answer in running if answer.is_wanted]
        return True

    def _step(self, running: list[_Answer]) -> list[_Answer]:
        """One token for each; those that go on."""
        if not running:
            return []
        try:
            self._use_threads()
            logits = self._get_decoder().step(
                [answer.state for answer in running], [answer.token for answer in running]
            )
            self._on_step(len(running))
            rows = dict(zip(running, logits.unbind(), strict=True))
        except Exception as error:  # border: their readers are told, later ones run
            for answer in running:
                answer.out.put(error)
            return []
        return [answer for answer, row in rows.items() if answer.extend(row)]

    def _use_threads(self) -> None:
        """One beside prefills: threads of a step wait for each other, and some would be kept from
        a core for long.
        """
        wanted = 1 if self._cores.is_prefilling else self._num_threads()
        if torch.get_num_threads() != wanted:
            torch.set_num_threads(wanted)


def _read(answer: _Answer) -> Iterator[int]:
    while (item := answer.out.get()) is not None:
        if isinstance(item, BaseException):
            raise item
        yield item


def _closed() -> SessionAbortedError:
    return SessionAbortedError("the node is stopping")
