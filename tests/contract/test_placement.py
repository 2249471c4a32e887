"""Other precisions and devices than float32 on the CPU."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedattn.core.errors import ConfigurationError
from fedattn.model import cache, loading
from fedattn.model.exchange import InProcessExchange, KvStore
from fedattn.model.loading import wrap_model
from fedattn.model.placement import choose_device, choose_weights
from fedattn.model.prefill import Prefiller, forward_tokens
from fedattn.model.prepare import PreparedModel
from fedattn.model.weights.choice import FLOAT32_WEIGHTS
from fedattn.research.oracle import oracle_greedy, oracle_logits
from tests.harness.runners import RUNNERS, run_in_process
from tests.harness.scenarios import NUM_NEW_TOKENS, SCENARIOS
from tests.harness.tiny import FAMILIES, tiny_model, tiny_network

UNREAD = PreparedModel(path=Path("/nowhere"), fingerprint="0" * 64, name="unread")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("runner", RUNNERS)
async def test_half_precision_stays_near_its_own_oracle(
    runner: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model = wrap_model(tiny_network("llama").to(dtype), "0" * 64)
    scenario = SCENARIOS[1]
    outcome = await RUNNERS[runner](scenario, model, tmp_path)
    expected = oracle_logits(model, scenario.layout(), scenario.joined(), [])[-1]
    torch.testing.assert_close(outcome.logits, expected, atol=0.1, rtol=0)
    assert len(outcome.generated) == NUM_NEW_TOKENS


async def test_half_precision_stays_near_full_precision(tmp_path: Path) -> None:
    half = wrap_model(tiny_network("llama").to(torch.bfloat16), "0" * 64)
    scenario = SCENARIOS[1]
    outcome = await run_in_process(scenario, half, tmp_path)
    full = tiny_model("llama")
    exact = oracle_logits(full, scenario.layout(), scenario.joined(), [])[-1]
    torch.testing.assert_close(outcome.logits, exact, atol=0.3, rtol=0)
    greedy = oracle_greedy(full, scenario.layout(), scenario.joined(), 1)
    assert outcome.generated[:1] == greedy


@pytest.mark.parametrize("family", FAMILIES)
def test_everything_follows_the_model_to_its_device(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch's `meta` device, which has no values but refuses to meet tensors of another."""
    network = tiny_network(family)
    real = wrap_model(network, "0" * 64)
    monkeypatch.setattr(loading, "largest_rows", lambda *_: real.row_bounds)
    network.to("meta").model.rotary_emb.inv_freq = torch.ones(4)  # type: ignore[union-attr]
    model = replace(wrap_model(network, "0" * 64), rotaries=real.rotaries)
    network.to("meta")
    assert model.device.type == "meta"
    rows: list[tuple[int, ...]] = []

    def fetch(tensor: torch.Tensor) -> np.ndarray:
        rows.append(tuple(tensor.shape))
        return np.zeros(tuple(tensor.shape[1:]), dtype=np.float32)

    scenario = SCENARIOS[1]
    layout = scenario.layout()
    monkeypatch.setattr(cache, "_to_numpy", fetch)
    positions = {len(member.span): member.input_positions() for member in layout.members}
    monkeypatch.setattr(cache, "_positions_to_numpy", lambda tensor: positions[tensor.shape[0]])
    prefix, tokens, question = scenario.tokens()
    store = KvStore(layout, model.shape, model.rotaries)
    prefiller = Prefiller(model)
    for index, token_ids in enumerate(tokens):
        exchange = InProcessExchange(store, index)
        prefiller.contribute(layout.members[index], prefix, token_ids, exchange)
    last = InProcessExchange(store, len(tokens))
    prefill = prefiller.publish(layout.publisher, prefix, question, last)
    assert rows
    with torch.inference_mode():
        hidden = forward_tokens(model, prefill.cache, [1], [prefill.next_position])
    assert (prefill.logits.device.type, hidden.device.type) == ("meta", "meta")


def test_auto_takes_the_gpu_that_torch_offers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cuda:0") == torch.device("cuda:0")
    assert choose_weights("auto", UNREAD, torch.device("cuda")).dtype is torch.float16
    with pytest.raises(ConfigurationError, match="offers 1 CUDA devices"):
        choose_device("cuda:1")


@pytest.mark.parametrize("name", ["gpu", "meta", "", "cuda:x"])
def test_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="expected auto, cpu, cuda or cuda:N"):
        choose_device(name)


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="offers 0 CUDA devices; choose cpu or auto"):
        choose_device("cuda")


def test_precisions() -> None:
    assert choose_weights("auto", UNREAD) == FLOAT32_WEIGHTS
    assert choose_weights("bfloat16", UNREAD).dtype is torch.bfloat16
    with pytest.raises(ConfigurationError, match=r"one of auto, float32, .*, q4_k, got .int3"):
        choose_weights("int3", UNREAD)
