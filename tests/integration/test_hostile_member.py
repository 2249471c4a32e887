"""What a member can do that has a good certificate and lies, and who is named for it.

The nodes are real and the rows are sealed; only member a, or b, is not what it should be.
"""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fedattn.core.codecs import codec_by_name
from fedattn.core.profile import CompressionWish
from fedattn.core.types import KvRows
from fedattn.model.loading import LoadedModel
from fedattn.wire.convert import wish_to_wire
from fedattn.wire.protocol import MAX_TEXT_LENGTH
from tests.harness.hostile import Tricks
from tests.harness.spoilers import Spoiler, is_shameless
from tests.harness.victims import PUBLISHER, Victims, outcomes, reason, running_victims

A, B = 0, 1
LARGEST = {"fp32": 1e30, "int8": 8e6, "entropy-coarse": 6e14}
"""Near the largest scalars that a codec carries; `test_row_bounds.py` has all codecs."""


@pytest.fixture
async def victims(model: LoadedModel, tmp_path: Path) -> AsyncIterator[Victims]:
    async with running_victims(model, tmp_path) as running:
        yield running


def noise(rows: KvRows, largest: float) -> KvRows:
    """Random rows of that size."""
    random = np.random.default_rng(5)
    keys, values = random.uniform(-largest, largest, (2, *rows.keys.shape)).astype(np.float32)
    return KvRows(keys=keys, values=values, positions=rows.positions)


@pytest.mark.parametrize("codec", LARGEST)
async def test_rows_that_no_text_makes_are_refused_by_everybody_and_their_sender_is_named(
    codec: str, victims: Victims, model: LoadedModel
) -> None:
    largest = LARGEST[codec]
    victims.nodes[A].prefiller = Spoiler(model, lambda rows: noise(rows, largest), is_shameless)
    compression = wish_to_wire(CompressionWish(codec=codec_by_name(codec)))
    report = await victims.ask(Tricks(), compression=compression)
    assert outcomes(report) == {"a": "LATE", "b": "COMPLETE", PUBLISHER: "COMPLETE"}
    assert reason(report, "a").startswith(f"b, {PUBLISHER}: rows of a at block 1: ")
    assert "at most" in reason(report, "a")


async def test_answer_without_refused_rows_is_the_one_without_any(
    victims: Victims, model: LoadedModel
) -> None:
    results = []
    for size in (1e9, 1e30):
        change = partial(noise, largest=size)
        victims.nodes[A].prefiller = Spoiler(model, change, is_shameless)
        results.append(await victims.answer(Tricks()))
    assert results[0].text == results[1].text
    influences = {one.node_id: one.influence for one in results[0].report.members}
    assert influences["a"] == 0.0
    assert sum(influences.values()) == pytest.approx(1.0)


async def test_rows_within_the_bounds_pass_and_what_they_drew_is_told(
    victims: Victims, model: LoadedModel
) -> None:
    def turned(rows: KvRows) -> KvRows:
        return KvRows(keys=-rows.keys, values=-rows.values, positions=rows.positions)

    victims.nodes[A].prefiller = Spoiler(model, turned)
    report = await victims.ask(Tricks())
    assert set(outcomes(report).values()) == {"COMPLETE"}
    influences = [one.influence for one in report.members]
    assert min(influences) > 0
    assert sum(influences) == pytest.approx(1.0)


async def test_member_whose_own_rows_are_no_numbers_says_so_itself(
    victims: Victims, model: LoadedModel
) -> None:
    def broken(rows: KvRows) -> KvRows:
        return KvRows(keys=rows.keys * np.nan, values=rows.values, positions=rows.positions)

    victims.nodes[B].prefiller = Spoiler(model, broken)
    report = await victims.ask(Tricks())
    assert outcomes(report) == {"a": "COMPLETE", "b": "LOST", PUBLISHER: "COMPLETE"}
    told = victims.said("session_failed")
    assert "rows of b at block 1: keys of norm nan" in told
    assert "it made them itself, and what it read of a was within them" in told


async def test_who_blames_another_without_reason_is_named_with_its_word(
    victims: Victims, model: LoadedModel
) -> None:
    def blames(exchange: object) -> None:
        exchange.late_members = lambda: {A: (1, "x" * 9999)}  # type: ignore[attr-defined]

    victims.nodes[B].prefiller = Spoiler(model, lambda rows: rows, blames)
    fp32 = wish_to_wire(CompressionWish(codec=codec_by_name("fp32")))
    report = await victims.ask(Tricks(), compression=fp32)
    assert outcomes(report)["b"] == "COMPLETE"
    assert reason(report, "a").startswith("b: xxx")
    assert reason(report, "a").endswith(f"; {PUBLISHER} had all its rows")
    assert len(reason(report, "a")) < MAX_TEXT_LENGTH + 100
