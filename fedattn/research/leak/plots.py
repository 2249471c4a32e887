"""A picture of what attacks recover."""

from collections.abc import Sequence
from pathlib import Path

from fedattn.research.evaluate.plots import new_figure, save_figure
from fedattn.research.leak.run import Summary


def draw_leak(summaries: Sequence[Summary], title: str, path: Path) -> list[Path]:
    """A bar an attack, of the share of tokens recovered; returns the files written.

    Args:
        summaries: of the attacks, at least one.
        title: of the picture.
        path: its name; the suffix is replaced by .png and .svg.

    Raises:
        InvalidRequestError: matplotlib is not installed.
    """
    figure = new_figure(6, 1.2 + 0.5 * len(summaries), title)
    axes = figure.subplots()
    names = [summary.attack.value for summary in reversed(summaries)]
    shares = [100 * summary.found for summary in reversed(summaries)]
    axes.bar_label(axes.barh(names, shares), fmt="%.0f %%", padding=3)
    axes.set(xlabel="share of the tokens recovered, %", xlim=(0, 115))
    return save_figure(figure, path)
