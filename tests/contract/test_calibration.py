"""Calibration measures what sessions do, on every family, and its profile is what they read."""

from dataclasses import replace

import pytest

from fedattn.core.codecs import codec_by_name
from fedattn.core.compression import Compression
from fedattn.core.errors import InvalidRequestError
from fedattn.core.plans import PlanSpec, SyncPlan, shared_plan
from fedattn.core.profile import resolve
from fedattn.core.profile_file import read_profile, write_profile
from fedattn.model.engine import Engine
from fedattn.model.prefill import Prefiller
from fedattn.research.calibrate.measuring import Effect, WorldMeter
from fedattn.research.calibrate.points import default_index, frontier, summarize
from fedattn.research.calibrate.run import Calibration, LengthPlan
from fedattn.research.simulate import SimulationSettings, Simulator
from fedattn.research.tasks.cases import Case
from tests.harness.learned import ragged, random_scorer
from tests.harness.tiny import (
    FAMILIES,
    NUM_LAYERS,
    UNLIKE_FAMILIES,
    tiny_model,
    word_tokenizer,
    words,
)

SMALL = (LengthPlan(length=20, facts=2, others=2, worlds=1, questions=2),)


def tiny_engine(family: str) -> Engine:
    model = tiny_model(family)
    return Engine(name=family, model=model, tokenizer=word_tokenizer(), prefiller=Prefiller(model))


@pytest.mark.parametrize("family", UNLIKE_FAMILIES)
@pytest.mark.parametrize("codec", ["fp32", "entropy-coarse"])
def test_all_questions_at_once_are_as_each_in_a_session(family: str, codec: str) -> None:
    engine = tiny_engine(family)
    contexts = (words(3, 14), words(40, 9))
    cases = [
        Case(contexts=contexts, question=words(60, 4), answer=words(8, 3)),
        Case(contexts=contexts, question=words(11, 7), answer=words(90, 1)),
    ]
    scorer, plan = random_scorer(engine.model.shape), SyncPlan((1, 2, 4))
    kept = replace(ragged(Compression(), engine.model.shape), codec=codec_by_name(codec))
    plans = shared_plan(plan.layers)
    found = WorldMeter(engine, cases).measure(plans, kept, scorer)

    simulator = Simulator(engine.prefiller, engine.tokenizer)
    whole = SimulationSettings(
        plans=shared_plan(range(NUM_LAYERS)),
        compression=Compression(codec=codec_by_name("bf16")),
        scorer=scorer,
        max_new_tokens=12,
    )
    less = replace(whole, compression=kept, plans=plans)
    divergence = nll_change = 0.0
    for case in cases:
        tokens = simulator.cut(case)
        base = simulator.run_tokens(tokens, whole, lambda _: True, as_reference=True)
        result = simulator.run_tokens(tokens, less, lambda _: True, base.reference)
        assert result.divergence is not None
        divergence += result.divergence / 2
        nll_change += (result.nll - base.nll) / 2
    assert found.divergence == pytest.approx(divergence, rel=1e-3)
    assert found.nll_change == pytest.approx(nll_change, rel=1e-3, abs=1e-4)
    assert found.bytes_share == pytest.approx(result.kv_bytes / base.kv_bytes)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_family_gets_a_profile_that_sessions_can_read(family: str) -> None:
    engine = tiny_engine(family)
    told: list[tuple[str, int, int]] = []
    calibration = Calibration(
        engine, SMALL, own=lambda lengths: iter([list(range(1, length)) for length in lengths])
    )
    made = calibration.run(lambda *step: told.append(step))
    profile = read_profile(write_profile(made), "p.json")
    assert profile.fingerprint == engine.model.fingerprint
    assert all(later.divergence > 0 for later in profile.points)
    assert [step for step in told if step[0] == "texts"][-1] == ("texts", 6, 6)
    assert told[-1][1] == told[-1][2]
    auto = PlanSpec("auto")
    resolved = resolve(auto, auto, NUM_LAYERS, profile)
    assert resolved.plans.publisher.layers == (1, 2, 3, 4)
    resolved.compression.check_shape(engine.model.shape)


def test_a_window_that_holds_no_texts_is_said() -> None:
    long = LengthPlan(length=80, facts=1, others=1, worlds=1, questions=1)
    with pytest.raises(InvalidRequestError, match=r"window of 256 tokens .* 80 tokens"):
        Calibration(tiny_engine("llama"), [long])


def test_points_that_another_beats_are_left_out_and_auto_is_the_smallest_good_one() -> None:
    def step(share: float, *divergences: float) -> list[Effect]:
        return [Effect(bytes_share=share, divergence=one, nll_change=0.0) for one in divergences]

    steps = {
        "fp32": step(0.5, 0.001, 0.001),
        "bf16": step(0.2, 0.012, 0.008),
        "int8": step(0.2, 0.02, 0.004),  # farther for the same bytes
        "int4": step(0.1, 0.004, 0.018),  # nearer than bf16 at one length, farther at the other
        "entropy-fine": step(0.05, 0.036, 0.008),  # small enough on average, not at each length
    }
    measured = [
        summarize(1.0, codec, b"", dict(zip((50, 200), effects, strict=True)))
        for codec, effects in steps.items()
    ]
    kept = frontier(measured)
    assert [one.point.codec for one in kept] == ["fp32", "bf16", "int4", "entropy-fine"]
    assert kept[default_index(kept)].point.codec == "int4"
    assert default_index(kept[-1:]) == 0
