"""Loading a prepared model."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from fedattn.core.costs import ModelSizes
from fedattn.core.errors import ModelError
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
    PreTrainedTokenizerFast,
)
from fedattn.model.largest_rows import largest_rows
from fedattn.model.pieces import compute_in_pieces
from fedattn.model.prepare import (
    PreparedModel,
    prepared_files,
    read_floats,
    read_network,
    weights_folder,
)
from fedattn.model.projections import read_projections
from fedattn.model.rotaries import read_turnings
from fedattn.model.weights.choice import FLOAT32_WEIGHTS, Weights
from fedattn.model.weights.direct import most_bytes
from fedattn.model.weights.formats import BlockFormat
from fedattn.model.weights.modules import matrices_of
from fedattn.model.weights.network import blocks_network, empty_network
from fedattn.model.weights.stored import BLOCKS_FILE

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
        row_bounds: what its rows and queries never exceed.
        max_positions: tokens in its window.
        end_token_ids: decoding ends before any of these.
        fingerprint: hex SHA-256 of config and weights.
        device: where it computes.
        read_block: finds the modules of a block for `FusedDecoder`; None if only transformers can
            run its blocks.
        is_in_blocks: whether its weights are `BlocksLinear` and the like.
        direct_bytes: that an answer's `DirectProducts` holds at most.
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
    is_in_blocks: bool = False
    direct_bytes: int = 0


def wrap_model(network: torch.nn.Module, fingerprint: str) -> LoadedModel:
    """Give a transformers causal LM our attention.

    Raises:
        ModelError: its configuration asks for what our attention cannot do.
        ValueError: its weights make rows of no finite length.
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
    projections = (read_projections(layer, offset) for layer in backbone.layers)  # one at a time
    scales = [turning.longest(sizes.kv.head_dim) for turning in turnings]
    ends = network.generation_config.eos_token_id  # type: ignore[union-attr]
    return LoadedModel(
        backbone=backbone,
        head=cast("torch.nn.Module", network.lm_head),
        shape=sizes.kv,
        sizes=sizes,
        windows=read_windows(config),
        rotaries=tuple(turning.rotary for turning in turnings),
        row_bounds=largest_rows(projections, scales, sizes.kv),
        max_positions=read_max_positions(config),
        end_token_ids=frozenset([ends] if isinstance(ends, int) else ends or []),  # type: ignore[arg-type]
        fingerprint=fingerprint,
        device=next(network.parameters()).device,
        read_block=block_reader(config),
        is_in_blocks=bool(matrices_of(network)),
        direct_bytes=most_bytes(matrices_of(network)),
    )


def read_sizes(prepared: PreparedModel, weights: Weights = FLOAT32_WEIGHTS) -> ModelSizes:
    """Sizes of a prepared model with weights of some form, without loading them.

    Raises:
        ModelError: its config cannot be read, or asks for what our attention cannot do.
    """
    files = prepared_files(prepared)
    network = empty_network(files, files.config(), weights.dtype)
    with files.reading("config"):
        sizes = _sizes(network)
    if weights.blocks is None:
        return sizes
    file = prepared.path / weights.name / BLOCKS_FILE
    form = weights.made_format or BlockFormat.Q8_0
    foretold = sizes.weight_bytes // 4 // form.block_size * form.row_bytes(form.block_size)
    return replace(sizes, weight_bytes=file.stat().st_size if file.is_file() else foretold)


def _sizes(network: torch.nn.Module) -> ModelSizes:
    config: Any = network.config
    weights = list(network.parameters())  # tied ones once
    windows = read_windows(config)
    return ModelSizes(
        kv=_kv_shape(config),
        hidden_size=config.hidden_size,
        num_query_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        weight_bytes=sum(weight.nbytes for weight in weights)
        + sum(matrix.nbytes for matrix in matrices_of(network)),
        bytes_per_scalar=weights[0].element_size(),
        windows=windows if any(windows) else (),
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
    weights: Weights = FLOAT32_WEIGHTS,
    device: torch.device = _CPU,
) -> LoadedModel:
    """Load the weights; on the CPU they are memory-mapped.

    Raises:
        ModelError: they cannot be read, or the model is not supported.
        ConfigurationError: they are in blocks, for which the kernels are missing.
    """
    files = prepared_files(prepared)
    config = files.config()  # refuses before weights are read
    if weights.blocks is None:
        network = _floats(prepared, weights, device)
    else:
        network = _blocks(prepared, weights, config)
    network = network.to(device)
    with files.reading("weights"):
        return wrap_model(network, fingerprint_of(prepared, weights))


def fingerprint_of(prepared: PreparedModel, weights: Weights) -> str:
    """What nodes of a session have in common: the source, and what was made of its weights.

    Blocks as they are stored compute what they do expanded, but for the order of sums. Those that
    weights were brought to here do not.
    """
    form = weights.made_format
    if form is None:
        return prepared.fingerprint
    return hashlib.sha256(f"{prepared.fingerprint}:{form.name}".encode()).hexdigest()


def _blocks(prepared: PreparedModel, weights: Weights, config: Any) -> Any:
    folder = weights_folder(prepared, weights)
    if folder == prepared.path:
        raise ModelError(
            f"{prepared.path} has no weights {weights.name} and they cannot be written there; let "
            f"this user write it, or set weights to float32"
        )
    # blocks of the source are made with the folder, others beside them
    remedy_folder = None if weights.made_format is None else folder
    files = replace(prepared_files(prepared, remedy_folder), location=folder)
    network = blocks_network(files, empty_network(prepared_files(prepared), config))
    network.generation_config = prepared_files(prepared).generation_config()
    return network


def _floats(prepared: PreparedModel, weights: Weights, device: torch.device) -> Any:
    path = weights_folder(prepared, weights) if device.type == "cpu" else prepared.path
    if path == prepared.path:
        return read_network(prepared, weights.dtype)
    return read_floats(prepared_files(prepared, path), weights.dtype)


def load_tokenizer(prepared: PreparedModel) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a prepared model.

    Raises:
        ModelError: it cannot be read, or is none of the tokenizers library.
    """
    return prepared_files(prepared).tokenizer()
