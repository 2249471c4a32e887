"""Loading a prepared model."""

from dataclasses import dataclass
from typing import Any, cast

import torch

from fedattn.core.costs import ModelSizes
from fedattn.core.rotary import Rotary
from fedattn.core.row_bounds import RowBounds
from fedattn.core.types import KvShape
from fedattn.model.attention import ATTENTION_NAME, register_attention
from fedattn.model.families import (
    FAMILIES,
    Windows,
    block_reader,
    check_config,
    read_bases,
    read_max_positions,
    read_windows,
)
from fedattn.model.fused_form import BlockReader
from fedattn.model.hugging_face import (
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    for_inference,
)
from fedattn.model.largest_rows import largest_rows
from fedattn.model.pieces import compute_in_pieces
from fedattn.model.prepare import PreparedModel, prepared_files, weights_folder
from fedattn.model.projections import read_projections
from fedattn.model.rotaries import read_turnings

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A causal LM with our attention, ready for inference.

    Attributes:
        backbone: the blocks and final norm; maps token ids to hidden states [T, d].
        head: the language-model head; maps hidden states [T, d] to logits [T, V].
        shape: sizes of its KV rows.
        sizes: what its costs follow from.
        windows: of every block, positions that a query sees, its own included; None for all.
        rotaries: of every block, its rotary position embedding.
        row_bounds: what its rows never exceed.
        max_positions: tokens in its window.
        end_token_ids: decoding ends before any of these.
        fingerprint: hex SHA-256 of config and weights.
        device: where it computes.
        read_block: finds the modules of a block for `FusedDecoder`; None if only transformers can
            run its blocks.
    """

    backbone: torch.nn.Module
    head: torch.nn.Module
    shape: KvShape
    sizes: ModelSizes
    windows: Windows
    rotaries: tuple[Rotary, ...]
    row_bounds: RowBounds
    max_positions: int
    end_token_ids: frozenset[int]
    fingerprint: str
    device: torch.device
    read_block: BlockReader | None


def wrap_model(network: torch.nn.Module, fingerprint: str) -> LoadedModel:
    """Give a transformers causal LM our attention.

    Raises:
        ModelError: its configuration asks for what our attention cannot do.
    """
    config: Any = network.config
    check_config(config)
    register_attention()
    network.set_attn_implementation(ATTENTION_NAME)  # type: ignore[operator]
    network.eval()
    backbone: Any = network.model
    for layer in backbone.layers:
        compute_in_pieces(layer.mlp)
    sizes = _sizes(network)
    turnings = read_turnings(backbone.rotary_emb, read_bases(config))
    offset = FAMILIES[config.model_type].norm_offset
    projections = [read_projections(layer, offset) for layer in backbone.layers]
    key_scales = [turning.longest(sizes.kv.head_dim) for turning in turnings]
    ends = network.generation_config.eos_token_id  # type: ignore[union-attr]
    return LoadedModel(
        backbone=backbone,
        head=cast("torch.nn.Module", network.lm_head),
        shape=sizes.kv,
        sizes=sizes,
        windows=read_windows(config),
        rotaries=tuple(turning.rotary for turning in turnings),
        row_bounds=largest_rows(projections, key_scales, sizes.kv),
        max_positions=read_max_positions(config),
        end_token_ids=frozenset([ends] if isinstance(ends, int) else ends or []),  # type: ignore[arg-type]
        fingerprint=fingerprint,
        device=next(network.parameters()).device,
        read_block=block_reader(config),
    )


def read_sizes(prepared: PreparedModel, dtype: torch.dtype = torch.float32) -> ModelSizes:
    """Sizes of a prepared model in a precision, without loading its weights.

    Raises:
        ModelError: its config cannot be read, or asks for what our attention cannot do.
    """
    config = prepared_files(prepared).config()
    with for_inference(), torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return _sizes(network)


def _sizes(network: torch.nn.Module) -> ModelSizes:
    config: Any = network.config
    weights = list(network.parameters())  # tied ones once
    return ModelSizes(
        kv=_kv_shape(config),
        hidden_size=config.hidden_size,
        num_query_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        weight_bytes=sum(weight.nbytes for weight in weights),
        bytes_per_scalar=weights[0].element_size(),
    )


def _kv_shape(config: Any) -> KvShape:
    head_dim = getattr(config, "head_dim", None)
    return KvShape(
        num_layers=config.num_hidden_layers,
        num_kv_heads=config.num_key_value_heads,
        head_dim=head_dim or config.hidden_size // config.num_attention_heads,
    )


def load_model(
    prepared: PreparedModel,
    dtype: torch.dtype = torch.float32,
    device: torch.device = _CPU,
) -> LoadedModel:
    """Load the weights; on the CPU they are memory-mapped.

    Raises:
        ModelError: they cannot be read, or the model is not supported.
    """
    prepared_files(prepared).config()  # refuses before weights are read
    path = weights_folder(prepared, dtype) if device.type == "cpu" else prepared.path
    network = prepared_files(prepared, path).network(dtype)
    return wrap_model(network.to(device), prepared.fingerprint)


def fastest_dtype() -> torch.dtype:
    """bfloat16 where this CPU multiplies it in hardware, else float32."""
    in_hardware = torch.cpu._is_avx512_bf16_supported()  # noqa: SLF001 - no public way to ask
    return torch.bfloat16 if in_hardware else torch.float32


def load_tokenizer(prepared: PreparedModel) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a prepared model.

    Raises:
        ModelError: it cannot be read, or is none of the tokenizers library.
    """
    return prepared_files(prepared).tokenizer()
