"""Network == in-process == one-model oracle: the test everything else is held against."""

from pathlib import Path

import pytest
import torch

from fedattn.core.routing import route_session
from fedattn.core.transfer import max_upload_size
from fedattn.model.loading import LoadedModel
from tests.harness.parity import TOLERANCE, equals_the_oracle
from tests.harness.runners import RUNNERS
from tests.harness.scenarios import ASKED_SCENARIOS, SCENARIOS, Scenario, context_words
from tests.harness.tiny import ALL_FAMILIES, FAMILIES, tiny_model, tiny_network

UNEVEN, MIXED, SEVERAL, INDEPENDENT = SCENARIOS[3], SCENARIOS[7], SCENARIOS[1], SCENARIOS[12]
ALL = (*SCENARIOS, *ASKED_SCENARIOS)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


@pytest.mark.parametrize(
    "scenario", [UNEVEN, MIXED, INDEPENDENT, *ASKED_SCENARIOS], ids=lambda one: one.name
)
@pytest.mark.parametrize("family", sorted(set(ALL_FAMILIES) - set(FAMILIES)))
async def test_every_other_family_gives_the_oracles_logits_and_tokens(
    family: str, scenario: Scenario, tmp_path: Path
) -> None:
    await equals_the_oracle("in-process", scenario, tiny_model(family), tmp_path)


@pytest.mark.parametrize("family", ["gemma3_text", "phi3", "smollm3"])
async def test_blocks_of_unlike_families_give_the_oracles_tokens_over_grpc(
    family: str, tmp_path: Path
) -> None:
    await equals_the_oracle("gRPC", UNEVEN, tiny_model(family), tmp_path)


@pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("runner", RUNNERS)
async def test_exchange_gives_the_oracles_logits_and_tokens(
    runner: str, scenario: Scenario, model: LoadedModel, tmp_path: Path
) -> None:
    await equals_the_oracle(runner, scenario, model, tmp_path)


@pytest.mark.parametrize("scenario", ALL, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("runner", RUNNERS)
async def test_exchange_moves_exactly_the_rows_that_are_needed(
    runner: str, scenario: Scenario, model: LoadedModel, tmp_path: Path
) -> None:
    outcome = await RUNNERS[runner](scenario, model, tmp_path)
    layout = scenario.layout()
    expected = sum(
        max_upload_size(member, model.shape, layer)
        for route, member in zip(route_session(layout), layout.members, strict=True)
        for layer in route.uploads
    )
    assert outcome.uploaded_bytes == expected


@pytest.mark.parametrize(
    ("family", "runner"),
    [*((family, "in-process") for family in ALL_FAMILIES), *((one, "gRPC") for one in FAMILIES)],
)
async def test_all_layers_equal_plain_transformers_on_the_joined_text(
    runner: str, family: str, tmp_path: Path
) -> None:
    scenario = SEVERAL
    outcome = await RUNNERS[runner](scenario, tiny_model(family), tmp_path)
    with torch.inference_mode():
        plain = tiny_network(family)(torch.tensor([scenario.joined()])).logits[0, -1]
    torch.testing.assert_close(outcome.logits, plain, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("runner", RUNNERS)
async def test_other_contexts_change_the_answer_only_through_the_exchange(
    runner: str, model: LoadedModel, tmp_path: Path
) -> None:
    """The suite can fail: without any sync layer the logits differ from those with all."""
    with_all = await RUNNERS[runner](SCENARIOS[1], model, tmp_path)
    alone = Scenario(name="none", contexts=context_words(9, 4), plan="none", publisher_plan="none")
    without = await RUNNERS[runner](alone, model, tmp_path)
    assert (with_all.logits - without.logits).abs().max() > 100 * TOLERANCE
