"""Tiny random models and a word tokenizer, so that every path runs in milliseconds."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE, WordLevel
from tokenizers.pre_tokenizers import ByteLevel, WhitespaceSplit
from tokenizers.trainers import BpeTrainer
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from fedattn.core.types import KvShape
from fedattn.model.loading import LoadedModel, wrap_model
from fedattn.model.prompt import PromptTokenizer

VOCABULARY = 97
NUM_LAYERS = 5
SYSTEM_PROMPT = "w1 w2 w3"
FAMILIES = ("llama", "qwen2")
"""Those that every contract is held to."""
UNLIKE_FAMILIES = (*FAMILIES, "gemma3_text")
"""And the one that is least like them, where windows and rotary embeddings matter."""
TINY_SHAPE = KvShape(num_layers=NUM_LAYERS, num_kv_heads=2, head_dim=8)
_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,  # grouped: three query heads share a key/value head
    "max_position_embeddings": 256,
    "eos_token_id": None,
    "bos_token_id": None,
    "pad_token_id": None,
}
_FULL, _SLIDING = "full_attention", "sliding_attention"
_OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "smollm3": {
        "no_rope_layers": [1, 0, 1, 1, 0],
        "layer_types": [_FULL, _SLIDING, _FULL, _SLIDING, _FULL],
        "use_sliding_window": True,
        "sliding_window": 6,
    },
    "gemma3_text": {
        "head_dim": 8,
        "query_pre_attn_scalar": 12,
        "layer_types": [_SLIDING, _SLIDING, _FULL, _SLIDING, _FULL],
        "sliding_window": 5,
        "rope_parameters": {
            _SLIDING: {"rope_type": "default", "rope_theta": 100.0},
            _FULL: {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4},
        },
    },
    "phi3": {
        "max_position_embeddings": 1024,
        "original_max_position_embeddings": 256,
        "partial_rotary_factor": 0.5,
        "rope_parameters": {
            "rope_type": "longrope",
            "short_factor": [1.1, 1.7],
            "long_factor": [2.0, 9.0],
            "rope_theta": 1e4,
        },
        "sliding_window": 7,
    },
    "mistral": {"head_dim": 8, "sliding_window": 6},
}
"""Windows are shorter than the prompts of tests: else nothing would be seen of them."""
ALL_FAMILIES = tuple(_OWN_SETTINGS)


def configure_tiny(family: str, **settings: Any) -> Any:
    """Configuration of a tiny model, with settings of one's own."""
    return AutoConfig.for_model(family, **{**_SIZES, **_OWN_SETTINGS[family], **settings})


def tiny_network(family: str, seed: int = 0, **settings: Any) -> torch.nn.Module:
    """A random causal LM; biases, where the family has them, are random too."""
    torch.manual_seed(seed)
    network: torch.nn.Module = AutoModelForCausalLM.from_config(configure_tiny(family, **settings))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
            elif parameter.ndim == 1:
                parameter.normal_(mean=1.0, std=0.2)  # norms
            else:
                # sharp attention with weight, so that answers depend on the contexts
                gain = 2.5 if "_proj" in name and "self_attn" in name else 1.0
                parameter.normal_(std=gain * parameter.shape[1] ** -0.5)
    return network.eval()


def tiny_model(family: str, seed: int = 0) -> LoadedModel:
    """A tiny network with our attention."""
    fingerprint = hashlib.sha256(f"{family}-{seed}".encode()).hexdigest()
    return wrap_model(tiny_network(family, seed), fingerprint)


def word_tokenizer() -> PromptTokenizer:
    """Token i is the word "wi"; unknown words are token 0."""
    words = {f"w{number}": number for number in range(VOCABULARY)}
    backend = Tokenizer(WordLevel(words, unk_token="w0"))
    backend.pre_tokenizer = WhitespaceSplit()
    return PromptTokenizer(PreTrainedTokenizerFast(tokenizer_object=backend), SYSTEM_PROMPT)


def words(first: int, count: int) -> str:
    """A text of `count` tokens."""
    return " ".join(f"w{(first + 7 * step) % VOCABULARY}" for step in range(count))


def save_tiny_model(folder: Path, family: str = "llama", seed: int = 0, **settings: Any) -> None:
    """Write a tiny model with a byte-level tokenizer and a chat template, as a user would have."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False)
    backend.decoder = ByteLevelDecoder()
    alphabet = sorted(ByteLevel.alphabet())
    backend.train_from_iterator([], BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}<assistant>"
    )
    tokenizer.save_pretrained(folder)
    sizes = {"vocab_size": 300, "max_position_embeddings": 1024}
    network = tiny_network(family, seed, **sizes | settings)
    network.save_pretrained(folder)  # type: ignore[operator]
