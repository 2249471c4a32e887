"""Prefills take turns beside running answers, and only there."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Event

import pytest

from fedattn.model.cores import Cores, Turn


def take(cores: Cores) -> Turn:
    turn = Turn(cores)
    turn.take()
    return turn


def test_without_answers_prefills_compute_as_they_come() -> None:
    cores = Cores()
    with cores.prefilling() as one, cores.prefilling() as other:
        held = [one.is_held, other.is_held]
        with one.away():
            held.append(one.is_held)
        held.append(one.is_held)
    assert held == [True, True, False, True]


def test_beside_an_answer_one_prefill_computes_at_a_time_in_the_order_of_asking() -> None:
    cores = Cores()
    with ThreadPoolExecutor(2) as pool, cores.answering():
        first = take(cores)
        second = pool.submit(take, cores)
        while not cores.num_waiting:
            pass
        third = pool.submit(take, cores)
        while cores.num_waiting < 2:
            pass
        assert not second.done()
        first.give_back()
        turn = second.result()
        assert not third.done()
        turn.give_back()
        third.result().give_back()


def test_all_prefills_go_on_when_the_last_answer_ends() -> None:
    cores = Cores()
    with ThreadPoolExecutor(1) as pool:
        with ExitStack() as answers:
            answers.enter_context(cores.answering())
            first = take(cores)
            second = pool.submit(take, cores)
            while not cores.num_waiting:
                pass
        second.result().give_back()
        first.give_back()


def test_who_waits_for_rows_has_no_turn_and_holds_up_nobody() -> None:
    cores = Cores()
    rows_came = Event()

    def prefill() -> None:
        with cores.prefilling() as turn, turn.away():
            rows_came.wait()

    with cores.answering(), ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(prefill)
        take(cores).give_back()
        rows_came.set()
        waiting.result()


def test_a_prefill_that_fails_away_ends_without_another_turn() -> None:
    cores = Cores()
    with cores.answering():
        with pytest.raises(RuntimeError), cores.prefilling() as turn:  # noqa: PT012
            with turn.away():
                other = take(cores)
                raise RuntimeError
        other.give_back()
        take(cores).give_back()


def test_prefills_are_seen_while_they_compute_or_wait_for_a_turn() -> None:
    cores = Cores()
    seen = [cores.is_prefilling]
    with cores.prefilling() as turn:
        seen.append(cores.is_prefilling)
        with turn.away():
            seen.append(cores.is_prefilling)
    seen.append(cores.is_prefilling)
    assert seen == [False, True, False, False]
