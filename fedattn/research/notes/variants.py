"""What `fedattn eval notes` compares."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedattn.core.plans import shared_plan
from fedattn.core.profile import Resolved
from fedattn.core.sampling import SamplingParams
from fedattn.core.share import Share
from fedattn.research.notes.passages import Selection
from fedattn.research.notes.run import NotesVariant

ONE_MODEL_WHOLE = "one model, whole texts"
ONE_MODEL_CHOSEN = "one model, chosen passages"
ALONE = "publisher alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class NotesGrid:
    """What to combine.

    Attributes:
        resolved: plans and how rows travel, by name.
        shares: what contributors know.
        context_tokens: of all texts together, where passages are chosen.
        num_layers: blocks of the model.
        with_whole: whether whole texts are asked too, which takes long.
        sampling: how tokens are chosen.
    """

    resolved: dict[str, Resolved]
    shares: Sequence[Share]
    context_tokens: int
    num_layers: int
    with_whole: bool
    sampling: SamplingParams


def make_notes_variants(grid: NotesGrid) -> list[NotesVariant]:
    """Every plan over every kind of choice, beside one model and the publisher alone."""
    every = shared_plan(range(grid.num_layers))
    none = shared_plan(())
    chosen = Selection(context_tokens=grid.context_tokens)
    whole = Selection()
    plain = NotesVariant(name=ONE_MODEL_CHOSEN, selection=chosen, plans=every,
                         sampling=grid.sampling)  # fmt: skip
    variants = [
        plain,
        replace(plain, name=ALONE, plans=none, alone=True),
    ]
    for name, one in grid.resolved.items():
        variants += [
            replace(
                plain,
                name=f"share {share}, {name}",
                selection=replace(chosen, share=share),
                plans=one.plans,
                compression=one.compression,
                scorer=one.scorer,
            )
            for share in grid.shares
        ]
    if grid.with_whole:
        variants.append(replace(plain, name=ONE_MODEL_WHOLE, selection=whole))
        variants += [
            replace(
                plain,
                name=f"whole texts, {name}",
                selection=whole,
                plans=one.plans,
                compression=one.compression,
                scorer=one.scorer,
            )
            for name, one in grid.resolved.items()
        ]
    return variants
