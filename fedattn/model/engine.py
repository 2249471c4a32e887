"""A model ready to prefill, opened in one call."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fedattn.model.loading import LoadedModel, load_model, load_tokenizer
from fedattn.model.placement import AUTO, choose_weights
from fedattn.model.prefill import Prefiller
from fedattn.model.prepare import PreparedModel, prepare_model
from fedattn.model.prompt import DEFAULT_SYSTEM_PROMPT, PromptTokenizer

_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What runs prompts.

    Attributes:
        name: of the model, as its user called it.
        model: the loaded model; its fingerprint is `model.fingerprint`.
        tokenizer: cuts prompts.
        prefiller: runs the model over spans.
    """

    name: str
    model: LoadedModel
    tokenizer: PromptTokenizer
    prefiller: Prefiller


def open_engine(  # noqa: PLR0913 - spelt out
    model: str | PreparedModel,
    system_prompt: str | None = None,
    *,
    weights: str = AUTO,
    device: torch.device = _CPU,
    cache_dir: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Engine:
    """Prepare a model if that was not done yet, load it and its tokenizer. Blocks for seconds.

    Args:
        model: as `prepare_model` takes it, or what it returned.
        system_prompt: public system prompt, None for the default one.
        weights: form of the weights, see `choose_weights`.
        device: where it computes.
        cache_dir: where prepared folders live, None for the default.
        progress: told in a few words what goes on.

    Raises:
        ModelError: the model cannot be found, is not supported, or cannot be read.
        ConfigurationError: `weights` is none that the model, device or machine has.
    """
    if not isinstance(model, PreparedModel):
        model = prepare_model(model, cache_dir=cache_dir, progress=progress)
    chosen = choose_weights(weights, model, device)
    loaded = load_model(model, chosen, device)
    tokenizer = PromptTokenizer(load_tokenizer(model), system_prompt or DEFAULT_SYSTEM_PROMPT)
    return Engine(
        name=model.name,
        model=loaded,
        tokenizer=tokenizer,
        prefiller=Prefiller(loaded),
    )
