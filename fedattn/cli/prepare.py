"""`fedattn model prepare`."""

import time
from typing import Annotated

import typer

from fedattn.cli.terminal import output, plain
from fedattn.profiles import shipped_profile
from fedattn.runtime.extras import require_extras


def prepare(
    model: Annotated[
        str, typer.Argument(help="default, a folder, a .gguf file, or a hub id (owner/name).")
    ] = "default",
) -> None:
    """Convert a model once for fast, shared loading; later calls do nothing."""
    require_extras("participant")
    console = output()
    begun = time.monotonic()
    with console.status(plain(f"looking for model {model}")) as status:
        from transformers.utils import logging as transformers_logging

        from fedattn.model.prepare import prepare_model

        transformers_logging.disable_progress_bar()  # ours is the only voice

        def show(step: str) -> None:
            status.update(plain(step))
            console.print(f"{time.monotonic() - begun:5.1f} s", style="dim", end="  ")
            console.print(step, soft_wrap=True)

        prepared = prepare_model(model, progress=show)
    console.print(f"model {prepared.name} is ready in {prepared.path}", soft_wrap=True)
    console.print(f"fingerprint {prepared.fingerprint}", soft_wrap=True)
    if shipped_profile(prepared.fingerprint) is None:
        console.print(
            f"no profile of this model is shipped, so plan auto is its middle blocks; find better "
            f"ones with: fedattn calibrate --model {model} --out profile.json",
            soft_wrap=True,
        )
