"""What is taken from transformers, imported without what inference never calls.

Its modelling code imports `torch.distributed`'s sharded tensors and `torch._dynamo`, and with them
sympy: a sixth of what a node imports, and half of the time for it. Neither is used here, so while
transformers is imported torch says that it was built without the one, and a stand-in takes the
place of the other. Both are back afterwards, and are imported by whoever asks for them. Sympy comes
all the same once a network is made on the meta device.

Every module imports these names from here. Whoever imported the modelling code before keeps what
it has; a test holds that a node did not.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
import torch.distributed

_DYNAMO = "torch._dynamo"


def _unchanged(function: Any = None, *_: Any, **__: Any) -> Any:
    """What the decorators of `torch._dynamo` do to code that nobody compiles."""
    return function if function is not None else lambda one: one


class _Dynamo(ModuleType):
    """Stands in for `torch._dynamo`; gives way to it for all but three decorators."""

    allow_in_graph = assume_constant_result = disable = staticmethod(_unchanged)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _forget(self)
        return getattr(importlib.import_module(_DYNAMO), name)


def _forget(stand_in: ModuleType) -> None:
    if sys.modules.get(_DYNAMO) is stand_in:
        del sys.modules[_DYNAMO]
    if vars(torch).get("_dynamo") is stand_in:
        del vars(torch)["_dynamo"]


@contextmanager
def for_inference() -> Iterator[None]:
    """While it lasts, torch has no `torch.distributed` and next to nothing of `torch._dynamo`.

    For what imports modelling code, and for what computes on the meta device: the functions that
    stand in for kernels there ask for the latter, to be left alone by it.
    """
    found = None if _DYNAMO in sys.modules else find_spec(_DYNAMO)
    if found is None:
        yield
        return
    stand_in = _Dynamo(_DYNAMO)
    stand_in.__path__ = list(found.submodule_search_locations or [])
    stand_in.__spec__ = found
    names = vars(torch.distributed)
    is_available = names["is_available"]
    sys.modules[_DYNAMO] = stand_in
    names["is_available"] = lambda: False
    try:
        yield
    finally:
        names["is_available"] = is_available
        _forget(stand_in)


with for_inference():
    import transformers.modeling_layers  # noqa: F401 - with it, what all families share
    from transformers import (
        AttentionInterface,
        AttentionMaskInterface,
        AutoConfig,
        AutoModelForCausalLM,
        AutoTokenizer,
        GenerationConfig,
        LogitsProcessorList,
        NoRepeatNGramLogitsProcessor,
        PretrainedConfig,
        PreTrainedTokenizerFast,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )
    from transformers.initialization import no_init_weights
    from transformers.utils import logging as transformers_logging

__all__ = [
    "AttentionInterface",
    "AttentionMaskInterface",
    "AutoConfig",
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "GenerationConfig",
    "LogitsProcessorList",
    "NoRepeatNGramLogitsProcessor",
    "PreTrainedTokenizerFast",
    "PretrainedConfig",
    "RepetitionPenaltyLogitsProcessor",
    "TemperatureLogitsWarper",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "for_inference",
    "no_init_weights",
    "transformers_logging",
]
