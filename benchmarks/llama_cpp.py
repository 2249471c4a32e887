"""llama.cpp's server beside ours, on the same GGUF file, if the package `xllamacpp` is installed.

pip install --no-deps xllamacpp
"""

import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_SILENT = -1


def is_installed() -> bool:
    """Whether there is a llama.cpp to compare with."""
    return find_spec("xllamacpp") is not None


class LlamaServer:
    """llama.cpp's server in this process, with a slot for each question.

    Args:
        path: of the GGUF file.
        threads: CPU threads.
        slots: questions at once.
        room: tokens of a question and its answer at most.
    """

    def __init__(self, path: Path, *, threads: int, slots: int, room: int) -> None:
        library = import_module("xllamacpp")
        params = library.CommonParams()
        params.verbosity = _SILENT
        params.model.path = str(path)
        params.n_ctx, params.n_parallel = room * slots, slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        self._server: Any = library.Server(params)

    def token_times(
        self, token_ids: list[int], count: int, *, slot: int, is_known: bool = False
    ) -> list[float]:
        """When the tokens of an answer came, by `time.perf_counter`.

        Args:
            token_ids: of the question.
            count: tokens of the answer.
            slot: that answers.
            is_known: whether the rows of the same question are still there, so that only its last
                token is computed before the answer.
        """
        came: list[float] = []

        def take(part: dict[str, Any]) -> bool:
            if part["choices"][0]["finish_reason"] is None:
                came.append(time.perf_counter())
            return False

        self._server.handle_completions(
            {
                "prompt": token_ids,
                "n_predict": count,
                "id_slot": slot,
                "cache_prompt": is_known,
                "ignore_eos": True,
                "temperature": 0,
                "stream": True,
            },
            take,
        )
        return came
