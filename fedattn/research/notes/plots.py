"""A picture of an evaluation over notes, as PNG and SVG."""

from pathlib import Path
from typing import Any

from fedattn.research.evaluate.plots import new_figure, save_figure


def draw_notes(summaries: dict[str, dict[str, Any]], model: str, path: Path) -> list[Path]:
    """Right answers and time to the first token, a bar a variant; returns the files written.

    Args:
        summaries: by name of the variant, as `summarize` gives them.
        model: its name.
        path: the suffix is replaced by .png and .svg.
    """
    names = list(summaries)
    figure = new_figure(11, 1.2 + 0.42 * len(names), f"Questions over notes, {model}")
    right, times = figure.subplots(1, 2, sharey=True)
    places = range(len(names))
    shares = [100 * row["right"] / row["questions"] for row in summaries.values()]
    right.barh(places, shares, color="tab:blue")
    right.set(xlabel="right answers, %", xlim=(0, 100))
    right.set_yticks(places, names)
    right.invert_yaxis()
    seconds = [row["prefill_s"] or 0.0 for row in summaries.values()]
    times.barh(places, seconds, color="tab:orange")
    times.set(xlabel="prefill of all nodes one after the other, s (median)")
    return save_figure(figure, path)
