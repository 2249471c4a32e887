"""Answers in one loop: together, each for itself."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fedattn.core.errors import ModelError, SessionAbortedError
from fedattn.core.sampling import SamplingParams
from fedattn.model.cores import Cores
from fedattn.model.decode_loop import DecodeLoop

END = 0
VOCABULARY = 50


def logits_of(token: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(token), VOCABULARY).float()


class Counting:
    """A decoder that counts on from each token, as far as it is let; END after `last`."""

    def __init__(self, last: int = VOCABULARY) -> None:
        self.last = last
        self.batches: list[list[int]] = []
        self.let = threading.Semaphore(0)
        self.in_step = threading.Event()
        self.fails_at = -1

    def begin(self, prefill: Any, room: int) -> Any:
        assert room >= 1
        return prefill

    def step(self, states: Sequence[Any], tokens: Sequence[int]) -> torch.Tensor:
        self.in_step.set()
        self.let.acquire()
        self.in_step.clear()
        self.batches.append(list(tokens))
        if self.fails_at in tokens:
            raise RuntimeError("a defect")
        return torch.stack([logits_of(token + 1 if token < self.last else END) for token in tokens])


@pytest.fixture
def decoder() -> Counting:
    return Counting()


@pytest.fixture
def steps() -> list[int]:
    return []


@pytest.fixture
def loop(decoder: Counting, steps: list[int]) -> Iterator[DecodeLoop]:
    model: Any = SimpleNamespace(device=torch.device("cpu"), end_token_ids=frozenset([END]))
    loop = DecodeLoop(model, lambda: decoder, num_threads=lambda: 1, on_step=steps.append)
    yield loop
    loop.close()
    decoder.let.release(1000)


def after(token: int) -> Any:
    """A prefill whose answer begins with this token."""
    return SimpleNamespace(logits=logits_of(token))


def greedy(count: int) -> SamplingParams:
    return SamplingParams.most_likely(count)


def test_an_answer_ends_after_its_most_tokens_without_a_step_for_nothing(
    loop: DecodeLoop, decoder: Counting
) -> None:
    decoder.let.release(10)
    assert list(loop.generate(after(5), greedy(4))) == [5, 6, 7, 8]
    assert decoder.batches == [[5], [6], [7]]


def test_an_end_token_ends_it_and_is_no_part_of_it(loop: DecodeLoop, decoder: Counting) -> None:
    decoder.last = 7
    decoder.let.release(10)
    assert list(loop.generate(after(5), greedy(40))) == [5, 6, 7]
    assert list(loop.generate(after(END), greedy(40))) == []


def test_one_token_needs_no_step(loop: DecodeLoop, decoder: Counting) -> None:
    assert list(loop.generate(after(5), greedy(1))) == [5]
    assert not decoder.batches


def test_answers_that_run_at_once_share_every_step(
    loop: DecodeLoop, decoder: Counting, steps: list[int]
) -> None:
    """The second joins while the first's step is held up; each step then gives both a token."""
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: list(loop.generate(after(10), greedy(4))))
        decoder.in_step.wait()
        second = pool.submit(lambda: list(loop.generate(after(30), greedy(3))))
        while not loop.num_joining:
            pass
        decoder.let.release(20)
        assert first.result() == [10, 11, 12, 13]
        assert second.result() == [30, 31, 32]
    assert decoder.batches == [[10], [11, 30], [12, 31]]
    assert steps == [1, 2, 2]


def test_who_stops_reading_leaves_and_the_others_go_on(loop: DecodeLoop, decoder: Counting) -> None:
    with ThreadPoolExecutor(2) as pool:
        stays = pool.submit(lambda: list(loop.generate(after(30), greedy(6))))
        decoder.in_step.wait()
        leaves = loop.generate(after(10), greedy(40))
        assert next(leaves) == 10
        second = pool.submit(next, leaves)
        while not loop.num_joining:
            pass
        decoder.let.release(2)
        assert second.result() == 11
        leaves.close()
        decoder.let.release(20)
        assert stays.result() == [30, 31, 32, 33, 34, 35]
    assert decoder.batches[:2] == [[30], [31, 10]]
    assert decoder.batches[-2:] == [[33], [34]]


def test_a_choice_that_fails_ends_its_own_answer_only(loop: DecodeLoop, decoder: Counting) -> None:
    """A draw from logits that are no numbers."""
    with ThreadPoolExecutor(1) as pool:
        stays = pool.submit(lambda: list(loop.generate(after(30), greedy(4))))
        decoder.in_step.wait()
        spoilt = loop.generate(after(10), SamplingParams(max_new_tokens=9, temperature=1.0))
        token = next(spoilt)
        step = decoder.step

        def with_nan(states: Sequence[Any], tokens: Sequence[int]) -> torch.Tensor:
            logits = step(states, tokens)
            for row, at in enumerate(tokens):
                if at == token:
                    logits[row] = torch.nan
            return logits

        decoder.step = with_nan  # type: ignore[method-assign]
        decoder.let.release(20)
        with pytest.raises(ModelError, match="got nan"):
            next(spoilt)
        assert stays.result() == [30, 31, 32, 33]


def test_a_step_that_fails_ends_its_answers_and_later_ones_run(
    loop: DecodeLoop, decoder: Counting
) -> None:
    decoder.fails_at = 11
    decoder.let.release(20)
    answer = loop.generate(after(10), greedy(5))
    assert [next(answer), next(answer)] == [10, 11]
    with pytest.raises(RuntimeError, match="a defect"):
        next(answer)
    assert list(loop.generate(after(20), greedy(3))) == [20, 21, 22]


class Failing(Counting):
    """Fails beside its step, where a loop calls others."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.let.release(1000)
        self.part = part

    def step(self, states: Sequence[Any], tokens: Sequence[int]) -> torch.Tensor:
        logits = super().step(states, tokens)
        return logits.repeat(2, 1) if self.part == "rows" else logits

    def num_threads(self) -> int:
        return 1 // (self.part != "threads")

    def on_step(self, _: int) -> None:
        assert self.part != "count"


@pytest.mark.parametrize("part", ["rows", "threads", "count"])
def test_what_fails_beside_a_step_ends_its_answers_too_and_later_ones_run(
    part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = Failing(part)
    model: Any = SimpleNamespace(device=torch.device("cpu"), end_token_ids=frozenset([END]))
    loop = DecodeLoop(
        model, lambda: decoder, num_threads=decoder.num_threads, on_step=decoder.on_step
    )
    told: list[Exception] = []
    over = threading.Event()  # the answer is, or the loop's thread
    monkeypatch.setattr(threading, "excepthook", lambda _: over.set())

    def read() -> None:
        try:
            list(loop.generate(after(5), greedy(4)))
        except Exception as error:
            told.append(error)
        over.set()

    threading.Thread(target=read, daemon=True).start()
    over.wait()
    assert told
    decoder.part = ""
    assert list(loop.generate(after(5), greedy(4))) == [5, 6, 7, 8]
    loop.close()


class Noting(Counting):
    """A decoder that notes on how many threads it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[int] = []

    def step(self, states: Sequence[Any], tokens: Sequence[int]) -> torch.Tensor:
        self.threads.append(torch.get_num_threads())
        return super().step(states, tokens)


def test_beside_a_prefill_steps_take_one_thread() -> None:
    decoder, cores = Noting(), Cores()
    decoder.let.release(1000)
    model: Any = SimpleNamespace(device=torch.device("cpu"), end_token_ids=frozenset([END]))
    loop = DecodeLoop(model, lambda: decoder, cores=cores, num_threads=lambda: 2)
    list(loop.generate(after(5), greedy(3)))
    with cores.prefilling():
        list(loop.generate(after(5), greedy(3)))
    list(loop.generate(after(5), greedy(3)))
    loop.close()
    assert decoder.threads == [2, 2, 1, 1, 2, 2]


def test_closing_ends_all_answers(loop: DecodeLoop, decoder: Counting) -> None:
    answer = loop.generate(after(10), greedy(5))
    assert next(answer) == 10
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(lambda: list(answer))
        decoder.in_step.wait()
        loop.close()
        decoder.let.release(1)
        with pytest.raises(SessionAbortedError, match="stopping"):
            rest.result()
    with pytest.raises(SessionAbortedError):
        list(loop.generate(after(10), greedy(5)))
