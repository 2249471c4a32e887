"""`fedattn model prepare`."""

from typing import Annotated

import typer

from fedattn.cli.options import AsJson
from fedattn.cli.preparing import prepare_with_bar
from fedattn.cli.terminal import output, write_json
from fedattn.profiles import shipped_profile
from fedattn.runtime.extras import require_extras


def prepare(
    model: Annotated[
        str, typer.Argument(help="default, a folder, a .gguf file, or a hub id (owner/name).")
    ] = "default",
    as_json: AsJson = False,
) -> None:
    """Convert a model once for fast, shared loading; later calls do nothing."""
    require_extras("participant")
    prepared = prepare_with_bar(model)
    has_profile = shipped_profile(prepared.fingerprint) is not None
    if as_json:
        write_json(
            {
                "name": prepared.name,
                "path": str(prepared.path),
                "fingerprint": prepared.fingerprint,
                "has_profile": has_profile,
            }
        )
        return
    console = output()
    console.print(f"model {prepared.name} is ready in {prepared.path}", soft_wrap=True)
    console.print(f"fingerprint {prepared.fingerprint}", soft_wrap=True)
    if not has_profile:
        console.print(
            f"no profile of this model is shipped: its nodes send every row until one of them has "
            f"made one; or make it now: fedattn calibrate --model {model} --out profile.json",
            soft_wrap=True,
        )
