"""Models whose weights are in blocks: network == in-process == oracle, on the same weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType
from transformers import AutoModelForCausalLM

from fedattn.core.errors import ConfigurationError, ModelError
from fedattn.core.sampling import SamplingParams
from fedattn.model import placement
from fedattn.model.decode import TransformersDecoder, generate_tokens
from fedattn.model.files import ModelFiles
from fedattn.model.graph_decoder import GraphDecoder
from fedattn.model.loading import LoadedModel, fingerprint_of, load_model, read_sizes, wrap_model
from fedattn.model.placement import choose_decoder, choose_weights
from fedattn.model.prepare import PreparedModel, prepare_model
from fedattn.model.weights import ggml as ggml_module
from fedattn.model.weights.choice import FLOAT32_WEIGHTS, STORED_WEIGHTS, Weights
from fedattn.model.weights.formats import BlockFormat
from fedattn.model.weights.gguf_file import read_gguf
from fedattn.model.weights.network import (
    blocks_network,
    bring_to_blocks,
    empty_network,
    float_network,
)
from fedattn.model.weights.stored import BLOCKS_FILE, write_tensors
from fedattn.research.oracle import oracle_greedy
from tests.harness.gguf_files import write_gguf
from tests.harness.parity import equals_the_oracle
from tests.harness.runners import RUNNERS, prefill_in_process
from tests.harness.scenarios import SCENARIOS
from tests.harness.tiny import FAMILIES, save_tiny_model, tiny_network

WIDTHS: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 8, "intermediate_size": 96}
Q8, HALF = Weights(blocks="q8_0"), Weights(dtype=torch.bfloat16)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("blocks")
    network: Any = tiny_network(request.param, **WIDTHS)
    write_tensors(bring_to_blocks(network, BlockFormat.Q4_0), folder / BLOCKS_FILE)
    files = ModelFiles(name="tiny", location=folder, remedy="make it again")
    return wrap_model(blocks_network(files, empty_network(files, network.config)), "f" * 64)


@pytest.mark.parametrize("scenario", SCENARIOS[:3], ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("runner", RUNNERS)
async def test_exchange_gives_the_oracles_logits_and_tokens(
    runner: str, scenario: Any, model: LoadedModel, tmp_path: Path
) -> None:
    await equals_the_oracle(runner, scenario, model, tmp_path)


def test_only_norms_and_biases_are_floats(model: LoadedModel) -> None:
    assert model.is_in_blocks
    assert all(one.ndim == 1 for one in model.backbone.parameters())
    floats = sum(one.nbytes for one in model.backbone.parameters())
    assert floats < model.sizes.weight_bytes < 100_000  # 623,000 in float32


@pytest.mark.parametrize("answers", [1, 20])
def test_decoding_by_blocks_stays_near_the_expanded_weights(
    answers: int, model: LoadedModel
) -> None:
    prefill = prefill_in_process(SCENARIOS[1], model)[0]
    decoder, exact = GraphDecoder(model), TransformersDecoder(model)
    states = [decoder.begin(prefill, 1) for _ in range(answers)]
    logits = decoder.step(states, [5] * answers)
    expected = exact.step([exact.begin(prefill, 1)], [5])[0]
    for row in logits:
        assert float((row - expected).norm() / expected.norm()) < 0.05


def test_a_model_in_blocks_decodes_by_them_unless_floats_are_wished(model: LoadedModel) -> None:
    assert isinstance(choose_decoder("auto", model)(), GraphDecoder)
    assert isinstance(choose_decoder("float32", model)(), TransformersDecoder)
    with pytest.raises(ConfigurationError, match="second copy of weights in blocks"):
        choose_decoder("int8", model)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedModel:
    folder = tmp_path_factory.mktemp("source")
    save_tiny_model(folder / "tiny", **WIDTHS)
    return prepare_model(str(folder / "tiny"), cache_dir=folder / "cache")


def test_floats_are_brought_to_blocks_once(prepared: PreparedModel) -> None:
    models = [load_model(prepared, choose_weights("q8_0", prepared)) for _ in range(2)]
    file = prepared.path / "q8_0" / BLOCKS_FILE
    assert [one.is_in_blocks for one in models] == [True, True]
    assert models[0].sizes.weight_bytes < file.stat().st_size
    assert read_sizes(prepared, Q8).weight_bytes == file.stat().st_size
    floats = load_model(prepared)
    blocks, plain = [one.backbone.layers[2].mlp.up_proj.weight for one in (models[0], floats)]  # type: ignore[index,union-attr]
    assert float((blocks - plain.detach()).norm() / plain.detach().norm()) < 0.01


@pytest.mark.parametrize("weights", [STORED_WEIGHTS, FLOAT32_WEIGHTS, HALF])
def test_answers_end_alike_in_every_form_of_weights(weights: Weights, tmp_path: Path) -> None:
    """At tokens that the preparation added to those of the configuration, too."""
    network: Any = tiny_network("llama", **WIDTHS)
    network.generation_config.eos_token_id = [2, 7]
    network.config.save_pretrained(tmp_path)
    network.generation_config.save_pretrained(tmp_path)
    (tmp_path / "stored").mkdir()
    write_tensors(bring_to_blocks(network, BlockFormat.Q8_0), tmp_path / "stored" / BLOCKS_FILE)
    prepared = PreparedModel(path=tmp_path, fingerprint="f" * 64, name="tiny")
    for _ in range(2):  # the second time as it was written the first time
        assert load_model(prepared, weights).end_token_ids == {2, 7}


def test_blocks_that_a_source_lacks_are_not_made_up(prepared: PreparedModel) -> None:
    with pytest.raises(ModelError, match="has no weights stored"):
        load_model(prepared, STORED_WEIGHTS)
    assert not (prepared.path / "stored").exists()


def test_blocks_made_here_are_another_model_and_those_stored_are_not(
    prepared: PreparedModel,
) -> None:
    made = {fingerprint_of(prepared, Weights(blocks=name)) for name in ("q8_0", "q4_0")}
    assert len(made | {prepared.fingerprint}) == 3
    assert fingerprint_of(prepared, STORED_WEIGHTS) == prepared.fingerprint


def test_a_damaged_file_of_blocks_is_named_with_what_to_delete(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "tiny", **WIDTHS)
    prepared = prepare_model(str(tmp_path / "tiny"), cache_dir=tmp_path / "cache")
    load_model(prepared, Q8)
    file = prepared.path / "q8_0" / BLOCKS_FILE
    whole = file.read_bytes()
    spoilt = whole[:-1000] + bytes(1000)
    for damaged in (whole[: len(whole) // 2], b"", whole[:8], b"x" * 100, spoilt):
        file.write_bytes(damaged)
        with pytest.raises(ModelError, match=f"q8_0 cannot be read .*; delete {file.parent}"):
            load_model(prepared, Q8)


def test_a_config_that_makes_no_network_for_blocks_is_named_with_what_to_delete(
    tmp_path: Path,
) -> None:
    save_tiny_model(tmp_path / "tiny", **WIDTHS)
    prepared = prepare_model(str(tmp_path / "tiny"), cache_dir=tmp_path / "cache")
    load_model(prepared, Q8)
    file = prepared.path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "none of them"}))
    with pytest.raises(ModelError, match=f"config .* cannot be read .*; delete {prepared.path} "):
        load_model(prepared, Q8)


def test_a_file_of_blocks_of_another_network_is_refused(
    tmp_path: Path, prepared: PreparedModel
) -> None:
    network: Any = tiny_network("llama", **WIDTHS)
    write_tensors(bring_to_blocks(network, BlockFormat.Q8_0), tmp_path / BLOCKS_FILE)
    files = ModelFiles(name="tiny", location=tmp_path, remedy="make it again")
    for settings, said in (
        ({"num_hidden_layers": 7}, r"lack model\.layers\.5"),
        ({"intermediate_size": 128}, r"is \[96, 64\], expected \[128, 64\]"),
    ):
        other = tiny_network("llama", **WIDTHS | settings).config
        with pytest.raises(ModelError, match=said):
            blocks_network(files, empty_network(files, other))


def test_where_ggml_is_not_weights_are_floats(
    prepared: PreparedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ggml_module, "find_ggml", lambda: None)
    monkeypatch.setattr(placement, "find_ggml", lambda: None)
    assert choose_weights("auto", prepare_model("default")) == FLOAT32_WEIGHTS
    assert "libggml-python" in caplog.text
    with pytest.raises(ConfigurationError, match="pip install libggml-python"):
        choose_weights("q8_0", prepared)


def test_what_a_source_lacks_or_a_gpu_cannot_is_refused(prepared: PreparedModel) -> None:
    assert choose_weights("auto", prepared) == FLOAT32_WEIGHTS
    assert choose_weights("auto", prepare_model("default")) == STORED_WEIGHTS
    with pytest.raises(ConfigurationError, match="has floats; set weights to q8_0"):
        choose_weights("stored", prepared)
    with pytest.raises(ConfigurationError, match="set device to cpu"):
        choose_weights("q8_0", prepared, torch.device("cuda"))


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_of_a_gguf_file_are_what_transformers_reads_in_it(
    family: str, tmp_path: Path
) -> None:
    source: Any = tiny_network(family, **WIDTHS)
    write_gguf(tmp_path / "tiny.gguf", family, source, GGMLQuantizationType.Q8_0)
    files = ModelFiles(name="tiny", location=tmp_path, remedy="make it again")
    tensors = read_gguf(tmp_path / "tiny.gguf", empty_network(files, source.config))
    assert {one.form for one in tensors.matrices.values()} == {BlockFormat.Q8_0}
    write_tensors(tensors, tmp_path / BLOCKS_FILE)
    blocks = blocks_network(files, empty_network(files, source.config))
    floats = float_network(files, empty_network(files, source.config), torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    ids = torch.tensor([[1, 5, 9, 60]])
    with torch.inference_mode():
        expected = plain(ids).logits
        for network in (blocks, floats):
            torch.testing.assert_close(network(ids).logits, expected, atol=1e-4, rtol=0)


def test_tokens_of_blocks_are_those_of_their_floats_expanded(model: LoadedModel) -> None:
    prefill = prefill_in_process(SCENARIOS[1], model)[0]
    sampling = SamplingParams.most_likely(6)
    expanded = list(generate_tokens(model, prefill, sampling))
    layout, joined = SCENARIOS[1].layout(), SCENARIOS[1].joined()
    assert expanded == oracle_greedy(model, layout, joined, 6)
