"""Long prompts go in pieces: the same answer, and memory that grows with length, not its square."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fedattn.model import attending, pieces
from fedattn.model.attention import sdpa
from fedattn.model.cache import FederatedCache
from fedattn.model.head_rows import RaggedRows
from fedattn.model.layer_cache import LayerCache
from fedattn.model.loading import LoadedModel
from fedattn.model.prefill import forward_tokens
from fedattn.research.oracle import oracle_logits
from tests.harness.runners import prefill_in_process
from tests.harness.scenarios import SCENARIOS, Scenario
from tests.harness.tiny import UNLIKE_FAMILIES, VOCABULARY, tiny_model


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the scalars of the largest tensor that any operation makes."""

    scalars: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, torch.Tensor):
                self.scalars = max(self.scalars, one.numel())
        return result


@pytest.fixture(scope="module", params=UNLIKE_FAMILIES)
def model(request: pytest.FixtureRequest) -> LoadedModel:
    return tiny_model(request.param)


@pytest.fixture(params=(1, 3))
def _small_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attending, "QUERIES_AT_ONCE", request.param)
    monkeypatch.setattr(pieces, "TOKENS_AT_ONCE", request.param)


@pytest.mark.usefixtures("_small_pieces")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_pieces_give_the_oracles_logits(scenario: Scenario, model: LoadedModel) -> None:
    prefill = prefill_in_process(scenario, model)[0]
    expected = oracle_logits(model, scenario.layout(), scenario.joined(), [])[-1]
    torch.testing.assert_close(prefill.logits, expected, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("_small_pieces")
def test_rows_of_each_head_in_pieces_are_as_with_a_whole_mask() -> None:
    torch.manual_seed(1)
    query, own = torch.randn(1, 6, 5, 8), torch.tensor([7, 8, 10, 11, 13])
    counts = (3, 0)
    others = RaggedRows(
        keys=torch.randn(3, 8),
        values=torch.randn(3, 8),
        positions=torch.tensor([2, 4, 6]),
        counts=counts,
        biases=torch.randn(3),
    )
    keys, values = torch.randn(2, 1, 2, 6, 8)
    rows = LayerCache(keys, values, torch.cat([torch.tensor([0]), own]), others)
    seen = attending.attend_rows(query, rows, own, None, None)
    for head, group in enumerate(rows.groups()):
        assert group.biases is not None
        mask = group.positions[None, :] <= own[:, None]
        scores = torch.where(mask, group.biases, -torch.inf)[None, None]
        of_head = slice(3 * head, 3 * head + 3)
        expected = sdpa(query[:, of_head], group.keys, group.values, scores, None)
        torch.testing.assert_close(seen[:, of_head], expected)


def test_the_largest_tensor_of_a_prefill_grows_with_its_length(model: LoadedModel) -> None:
    assert _largest(model, 4096) <= 2 * _largest(model, 2048)


@torch.inference_mode()
def _largest(model: LoadedModel, num_tokens: int) -> int:
    cache = FederatedCache(model.windows, model.device)
    ids = [token % VOCABULARY for token in range(num_tokens)]
    with Largest() as largest:  # type: ignore[no-untyped-call]
        forward_tokens(model, cache, ids, range(num_tokens))
    return int(largest.scalars)
