"""`fedattn model prepare`."""

import time

from rich.console import Console

from fedattn.profiles import shipped_profile


def prepare_command(model: str) -> None:
    """Prepare a model, telling each step and how long it took."""
    console = Console(highlight=False)
    begun = time.monotonic()
    with console.status(f"looking for model {model}") as status:
        from transformers.utils import logging as transformers_logging

        from fedattn.model.prepare import prepare_model

        transformers_logging.disable_progress_bar()  # ours is the only voice

        def show(step: str) -> None:
            status.update(step)
            console.print(f"[dim]{time.monotonic() - begun:5.1f} s[/]  {step}", soft_wrap=True)

        prepared = prepare_model(model, progress=show)
    console.print(f"model {prepared.name} is ready in {prepared.path}", soft_wrap=True)
    console.print(f"fingerprint {prepared.fingerprint}", soft_wrap=True)
    if shipped_profile(prepared.fingerprint) is None:
        console.print(
            f"no profile of this model is shipped, so plan auto is its middle blocks; find better "
            f"ones with: fedattn calibrate --model {model} --out profile.json",
            soft_wrap=True,
        )
