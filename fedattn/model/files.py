"""Model files as transformers reads them. Whatever is wrong with them is one line of text."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedattn.core.errors import FedAttnError, ModelError
from fedattn.model.families import check_config
from fedattn.model.gguf_check import check_gguf, read_head, restore_rope
from fedattn.model.hugging_face import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    for_inference,
    transformers_logging,
)

_COMPUTED_WEIGHTS = ("rotary_emb.inv_freq",)  # old checkpoints hold what every loader computes


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """Config, weights and tokenizer of one model. Every method raises ModelError.

    Attributes:
        name: of the model, for messages.
        location: a folder, or a GGUF file.
        remedy: what to do if a file is damaged or missing.
    """

    name: str
    location: Path
    remedy: str

    def config(self) -> Any:
        """The configuration, once neither `check_config` nor `check_gguf` is against it."""
        with self.reading("config"):
            config = AutoConfig.from_pretrained(**self._place())
            check_config(config, self.name)
        if self.location.is_file():
            with self.reading("config"):
                head = read_head(self.location)
                restore_rope(head, config)
                check_gguf(head, config, self.name)
        return config

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer; one of the tokenizers library, which decodes text piece by piece."""
        with self.reading("tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(**self._place())
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ModelError(
                f"the tokenizer of model {self.name} is a {type(tokenizer).__name__}, expected one "
                f"with a tokenizer.json; name a model that has it"
            )
        return tokenizer

    def generation_config(self) -> Any:
        """How answers end."""
        with self.reading("generation config"):
            return GenerationConfig.from_pretrained(self.location, local_files_only=True)

    def network(self, dtype: torch.dtype) -> Any:
        """The causal LM with its weights, memory-mapped if they are stored in this precision.

        Weights that are missing would be random, and those left over belong to another network:
        transformers only warns of both, here they are errors.
        """
        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()  # its reports span many lines; ours is one
        place = self._place()
        if self.location.is_file():
            place["config"] = self.config()  # with what transformers drops
        with self.reading("weights"), for_inference():
            network, found = AutoModelForCausalLM.from_pretrained(
                dtype=dtype, output_loading_info=True, **place
            )
        missing = sorted(found["missing_keys"])
        surplus = [
            key for key in sorted(found["unexpected_keys"]) if not key.endswith(_COMPUTED_WEIGHTS)
        ]
        for what, keys in (("lack", missing), ("have, against the config,", surplus)):
            if keys:
                raise ModelError(
                    f"weights of model {self.name} in {self.location} {what} {keys[0]} "
                    f"({len(keys)} in all); {self.remedy}"
                )
        return network

    @contextmanager
    def reading(self, what: str) -> Iterator[None]:
        """Say in one line which files cannot be read, and why."""
        try:
            yield
        except FedAttnError:
            raise
        except Exception as error:  # a border: damaged files end in any error of five libraries
            lines = str(error).strip().splitlines() or [""]
            reason = f"{type(error).__name__}: {lines[0].rstrip(':, ')[:200]}"
            raise ModelError(
                f"{what} of model {self.name} in {self.location} cannot be read ({reason}); "
                f"{self.remedy}"
            ) from error

    def _place(self) -> dict[str, Any]:
        is_file = self.location.is_file()
        folder = self.location.parent if is_file else self.location
        place = {"pretrained_model_name_or_path": folder, "local_files_only": True}
        return place | ({"gguf_file": self.location.name} if is_file else {})
