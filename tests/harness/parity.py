"""What every implementation of an exchange is held to."""

from pathlib import Path

import torch

from fedattn.model.loading import LoadedModel
from fedattn.research.oracle import oracle_greedy, oracle_logits
from tests.harness.runners import RUNNERS
from tests.harness.scenarios import NUM_NEW_TOKENS, Scenario

TOLERANCE = 1e-4
"""Of logits."""


async def equals_the_oracle(
    runner: str, scenario: Scenario, model: LoadedModel, folder: Path
) -> None:
    """Logits and tokens of a scenario are those of one model over the joined text."""
    outcome = await RUNNERS[runner](scenario, model, folder)
    layout, joined = scenario.layout(), scenario.joined()
    expected = oracle_logits(model, layout, joined, [])[-1]
    torch.testing.assert_close(outcome.logits, expected, atol=TOLERANCE, rtol=0)
    assert outcome.generated == oracle_greedy(model, layout, joined, NUM_NEW_TOKENS)
