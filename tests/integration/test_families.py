"""What the attention seam refuses, and that what it takes equals plain transformers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, Qwen2Config

from fedattn.core.errors import ConfigurationError, ModelError
from fedattn.model.attention import federated_attention
from fedattn.model.cache import FederatedCache
from fedattn.model.decode import Decoder, TransformersDecoder
from fedattn.model.engine import Engine
from fedattn.model.families import FAMILIES, check_config
from fedattn.model.fingerprint import fingerprint_model
from fedattn.model.fused import FLOAT32, FusedDecoder
from fedattn.model.loading import LoadedModel, load_model, read_sizes, wrap_model
from fedattn.model.placement import choose_decoder, decoder_bytes
from fedattn.model.prefill import Prefiller, PrefillResult, forward_tokens
from fedattn.model.prepare import PreparedModel, prepare_model
from services.participant import app
from services.participant.settings import ParticipantSettings
from tests.harness.tiny import (
    ALL_FAMILIES,
    configure_tiny,
    save_tiny_model,
    tiny_model,
    tiny_network,
    word_tokenizer,
)

WINDOWS: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2}
CAPPED: dict[str, Any] = {"attn_logit_softcapping": 30.0}
LONG = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "rope_theta": 1e4,
    "original_max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "rope_theta": 1e4,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_every_family_has_a_tiny_model() -> None:
    assert set(FAMILIES) == set(ALL_FAMILIES)


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("qwen2", WINDOWS | {"layer_types": ["chunked_attention"] * 5}, "layer_types at block 0"),
        ("qwen2", {"layer_types": ["sliding_attention"] * 5}, "sliding_window: expected a number"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
        ("gemma3_text", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "blocks with positions: expected 5, got 2"),
        ("mistral", {"layer_types": ["full_attention"] * 5}, "layer_types"),
        ("mistral", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("qwen3", {"rope_parameters": YARN | {"rope_type": "longrope", **LONG}}, "rope_type"),
        ("llama", {"sliding_window": 8}, "sliding_window: expected None"),
        ("llama", {"attn_logit_softcapping": 30.0}, "attn_logit_softcapping: .* got 30.0"),
        ("llama", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ("llama", {"attention_chunk_size": 4}, "attention_chunk_size"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("llama", {"rope_parameters": YARN | {"partial_rotary_factor": 0.5}}, "partial_rotary"),
        ("llama", {"rope_parameters": LINEAR | {"rope_type": "dynamic"}}, "rope_type: .*'dynamic'"),
        ("llama", {"rope_parameters": LINEAR | {"mrope_section": [2, 2]}}, "mrope_section"),
        ("llama", {"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
    ],
)
def test_what_would_be_answered_for_wrongly_is_refused_by_name(
    family: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        check_config(configure_tiny(family, **settings))


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "gemma2", "ministral", "qwen3_moe"])
def test_another_family_is_refused_by_name_and_told_which_are_taken(family: str) -> None:
    with pytest.raises(ModelError, match=f"is of family '{family}'; supported are gemma3_text, "):
        check_config(AutoConfig.for_model(family))


def test_windows_are_those_of_the_layers_that_slide() -> None:
    assert wrap_model(tiny_network("qwen2", **WINDOWS), "f" * 64).windows == (None, None, 8, 8, 8)
    assert tiny_model("mistral").windows == (6,) * 5


def test_a_long_prompt_of_longrope_ends_where_its_keys_would_change() -> None:
    assert tiny_model("phi3").max_positions == 256


def test_a_network_with_soft_caps_is_refused_before_it_can_answer() -> None:
    with pytest.raises(ModelError, match="attn_logit_softcapping"):
        wrap_model(tiny_network("gemma3_text", **CAPPED), "f" * 64)


def test_a_source_with_soft_caps_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "m", "gemma3_text", **CAPPED)
    with pytest.raises(ModelError, match="model m would be answered for wrongly: attn_logit"):
        prepare_model(str(tmp_path / "m"), cache_dir=tmp_path / "c")
    assert not list((tmp_path / "c" / "models").glob("m-*/*"))


@pytest.mark.parametrize("read", [load_model, read_sizes])
def test_a_prepared_folder_of_another_kind_is_refused_too(tmp_path: Path, read: Any) -> None:
    save_tiny_model(tmp_path, "gemma3_text", **CAPPED)
    with pytest.raises(ModelError, match="attn_logit_softcapping"):
        read(PreparedModel(path=tmp_path, fingerprint="f" * 64, name="m"))


def plain_and_ours(family: str, **settings: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Last logits of plain transformers, and of all that can decode behind our seam."""
    ids = (torch.arange(40) * 7 % 97).tolist()
    network = tiny_network(family, **settings)
    with torch.inference_mode():
        plain = network(torch.tensor([ids])).logits[0, -1]
    model = wrap_model(network, "f" * 64)
    decoders: list[Decoder[Any]] = [TransformersDecoder(model)]
    if model.read_block is not None:
        decoders.append(FusedDecoder(model, FLOAT32))
    return plain, [last_logits(model, decoder, ids) for decoder in decoders]


def last_logits(model: LoadedModel, decoder: Decoder[Any], ids: list[int]) -> torch.Tensor:
    cache = FederatedCache(model.windows, model.device)
    with torch.inference_mode():
        forward_tokens(model, cache, ids[:-1], range(len(ids) - 1))
    prefill = PrefillResult(cache=cache, logits=torch.empty(0), next_position=len(ids) - 1)
    return decoder.step([decoder.begin(prefill, 1)], [ids[-1]])[0]


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        *((family, {}) for family in ALL_FAMILIES),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"rope_parameters": LINEAR}),
        ("llama", {"rope_parameters": YARN}),
        ("llama", {"rope_parameters": LLAMA3}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("qwen2", WINDOWS),
        ("qwen3", WINDOWS | {"rope_parameters": YARN}),
        ("gemma3_text", {"attention_bias": True}),
        ("mistral", {"sliding_window": None, "rope_parameters": YARN}),
        ("phi3", {"sliding_window": None, "rope_parameters": {"rope_theta": 1e4}}),
        ("smollm3", {"attention_bias": True, "rope_parameters": YARN}),
    ],
)
def test_what_is_taken_equals_plain_transformers(family: str, settings: dict[str, Any]) -> None:
    plain, ours = plain_and_ours(family, **settings)
    for logits in ours:
        torch.testing.assert_close(logits, plain, atol=1e-4, rtol=0)


def test_another_activation_than_silu_is_not_fused() -> None:
    model = wrap_model(tiny_network("llama", hidden_act="gelu"), "f" * 64)
    assert model.read_block is None
    with pytest.raises(ModelError, match="fused decoder cannot run"):
        FusedDecoder(model, FLOAT32)


def test_a_model_that_is_not_fused_decodes_by_transformers_unless_int8_is_wished() -> None:
    gelu = wrap_model(tiny_network("llama", hidden_act="gelu"), "f" * 64)
    assert isinstance(choose_decoder("auto", gelu)(), TransformersDecoder)
    with pytest.raises(ConfigurationError, match=r"decode_weights int8 does not know .* float32"):
        choose_decoder("int8", gelu)


@pytest.mark.parametrize(
    ("weights", "kind"),
    [("auto", FusedDecoder), ("int8", FusedDecoder), ("float32", TransformersDecoder)],
)
def test_a_model_on_a_cpu_decodes_with_the_weights_wished(weights: str, kind: type) -> None:
    assert isinstance(choose_decoder(weights, tiny_model("llama"))(), kind)


@pytest.mark.parametrize(
    ("weights", "differently", "is_int8"),
    [
        ("auto", {}, True),
        ("int8", {}, True),
        ("float32", {}, False),
        ("auto", {"read_block": None}, False),
        ("auto", {"is_in_blocks": True}, False),
        ("auto", {"device": torch.device("cuda")}, False),
    ],
)
def test_a_publisher_reserves_memory_for_a_decoder_in_int8_only(
    weights: str, differently: dict[str, Any], is_int8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "own_bytes", lambda: 0)
    model = replace(tiny_model("llama"), **differently)
    engine = Engine(
        name="tiny", model=model, tokenizer=word_tokenizer(), prefiller=Prefiller(model)
    )
    asked: dict[str, Any] = {"node_id": "a", "memory": 1 << 30, "decode_weights": weights}
    contributor = app._make_budget(ParticipantSettings(**asked), engine)
    publisher = app._make_budget(ParticipantSettings(**asked, publish=True), engine)
    assert contributor.total == 1 << 30
    expected = model.sizes.weight_bytes // 4 if is_int8 else 0
    assert contributor.total - publisher.total == decoder_bytes(weights, model) == expected


def test_unknown_decode_weights_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected one of auto, float32, int8, got 'int3'"):
        choose_decoder("int3", tiny_model("llama"))


@pytest.mark.parametrize(
    "asked", [{"sliding_window": 8}, {"softcap": 30.0}, {"s_aux": torch.zeros(2)}, {"novelty": 1}]
)
def test_attention_refuses_by_name_what_it_does_not_do(asked: dict[str, Any]) -> None:
    rows = torch.zeros(1, 2, 3, 4)
    cache = FederatedCache((None,), torch.device("cpu"))
    module = torch.nn.Module()
    module.layer_idx = 0  # type: ignore[assignment]
    with pytest.raises(ModelError, match=next(iter(asked))):
        federated_attention(module, rows, rows, rows, None, kv_view=cache, **asked)


def fingerprint(tmp_path: Path, config: Any) -> str:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return fingerprint_model(config, tmp_path)


def test_windows_change_the_fingerprint(tmp_path: Path) -> None:
    with_windows, without = Qwen2Config(**WINDOWS), Qwen2Config()
    assert fingerprint(tmp_path, with_windows) != fingerprint(tmp_path, without)


def test_a_key_nobody_thought_of_changes_the_fingerprint(tmp_path: Path) -> None:
    novel = LlamaConfig(attention_of_tomorrow="spiral")
    assert fingerprint(tmp_path, novel) != fingerprint(tmp_path, LlamaConfig())


@pytest.mark.parametrize(
    "settings",
    [{"dtype": "bfloat16"}, {"use_cache": False}, {"name_or_path": "/elsewhere"}],
)
def test_place_and_precision_leave_the_fingerprint(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    other = LlamaConfig(**settings)
    assert fingerprint(tmp_path, other) == fingerprint(tmp_path, LlamaConfig())


def test_fingerprint_of_a_saved_model_is_that_of_the_one_saved(tmp_path: Path) -> None:
    network = LlamaForCausalLM(configure_tiny("llama"))
    network.save_pretrained(tmp_path / "m")
    saved = LlamaConfig.from_pretrained(tmp_path / "m")
    assert fingerprint(tmp_path, saved) == fingerprint(tmp_path, network.config)
