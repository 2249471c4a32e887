"""Preparing a model while its user sees how far it is."""

import time
from typing import TYPE_CHECKING

from fedattn.cli.terminal import bars, plain, progress

if TYPE_CHECKING:
    from fedattn.model.prepare import PreparedModel

_NUM_STEPS = 6
"""What `prepare_model` tells of a model on this machine; one from a hub has one more."""


def prepare_with_bar(model: str) -> "PreparedModel":
    """As `prepare_model`; each step is told on stderr, with a bar if that is a terminal.

    Raises:
        ModelError: the model cannot be prepared.
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    from fedattn.model.hugging_face import transformers_logging
    from fedattn.model.prepare import prepare_model

    transformers_logging.disable_progress_bar()  # ours is the only voice
    console, begun = progress(), time.monotonic()
    with bars(console) as shown:
        task = shown.add_task(f"looking for model {model}", total=_NUM_STEPS)

        def show(step: str) -> None:
            console.print(plain(f"{time.monotonic() - begun:5.1f} s", "dim"), end="  ")
            console.print(step, soft_wrap=True)
            shown.update(task, description=step.partition(",")[0])
            shown.advance(task)
            if step.startswith("fetching") and console.is_terminal:
                shown.stop()  # the hub's library draws its own, by bytes
                enable_progress_bars()
            else:
                disable_progress_bars()
                shown.start()

        prepared = prepare_model(model, progress=show)
        shown.update(task, completed=_NUM_STEPS)
    return prepared
