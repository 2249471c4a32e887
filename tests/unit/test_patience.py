"""How long nodes are waited for, by what others took."""

import asyncio
from math import inf

import pytest

from services.aggregator.patience import Round, allowed_s


@pytest.mark.parametrize(
    ("others_s", "expected_s"),
    [
        ([], 10.0),  # nobody to compare with
        ([inf], 10.0),
        ([0.1, inf], 10.0),  # not yet most of them
        ([0.1, 0.2, inf], 4.0),
        ([0.2, 0.3, 9.0], 5.0),  # one slow node makes no rule
        ([3.0, 3.0], 10.0),  # where all are slow, the hard limit holds
    ],
)
def test_ten_times_the_median_of_the_others_and_a_margin_within_the_hard_limit(
    others_s: list[float], expected_s: float
) -> None:
    assert allowed_s(others_s, margin_s=2.0, hard_s=10.0) == expected_s


async def test_who_is_silent_while_most_others_answer_is_out_before_the_hard_limit() -> None:
    together = Round(4, hard_s=3600.0)
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    answered.set_result("yes")
    silent: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waits = [together.wait(silent, 0.0), *(together.wait(answered, 0.0) for _ in range(3))]
    out, *others = await asyncio.gather(*waits, return_exceptions=True)
    assert isinstance(out, TimeoutError)
    assert others == ["yes"] * 3
    assert together.allowed_s(0.0) < 3600.0


async def test_nobody_is_out_while_most_others_are_silent_too() -> None:
    together = Round(3, hard_s=3600.0)
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
    waits = [asyncio.create_task(together.wait(future, 0.0)) for future in futures]
    futures[0].set_result("yes")
    assert await waits[0] == "yes"
    assert together.allowed_s(0.0) == 3600.0
    for wait in waits[1:]:
        wait.cancel()
    await asyncio.gather(*waits[1:], return_exceptions=True)


async def test_an_answer_moves_no_wait_that_has_just_run_out() -> None:
    loop = asyncio.get_running_loop()
    together = Round(3, hard_s=3600.0)
    answer, silent, other = (loop.create_future() for _ in range(3))
    waits = [asyncio.create_task(together.wait(one, 0.0)) for one in (answer, silent, other)]
    await asyncio.sleep(0)
    answer.set_result("yes")  # its task goes on behind what follows
    [*together._waiting][1]._on_timeout()  # type: ignore[attr-defined]
    answered, given_up = await asyncio.gather(*waits[:2], return_exceptions=True)
    assert answered == "yes"
    assert isinstance(given_up, TimeoutError)
    waits[2].cancel()
    await asyncio.gather(waits[2], return_exceptions=True)
