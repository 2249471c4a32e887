"""Pictures of an evaluation, as PNG and SVG."""

from pathlib import Path
from typing import Any

from fedattn.core.errors import InvalidRequestError

_ENDS = {"centralised": "--", "publisher alone": ":"}
_PANELS = (
    ("exact_match", "exact match"),
    ("nll", "answer NLL, nats a token"),
    ("divergence", "KL from centralised, nats a token"),
)


def draw_results(summary: dict[str, dict[str, Any]], title: str, path: Path) -> list[Path]:
    """Quality against KV bytes a query, one marker a variant; returns the files written.

    Args:
        summary: by name of the variant; centralised and alone become lines.
        title: of the picture.
        path: its name; the suffix is replaced by .png and .svg.

    Raises:
        InvalidRequestError: matplotlib is not installed.
    """
    panels = [
        (key, label)
        for key, label in _PANELS
        if all(row[key] is not None for row in summary.values())
    ]
    figure = new_figure(5 * len(panels), 4.2, title)
    for axes, (key, label) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        _draw_panel(axes, summary, key)
        axes.set(xlabel="KV KiB a query", ylabel=label)
    figure.axes[0].legend(fontsize="small")
    return save_figure(figure, path)


def new_figure(width: float, height: float, title: str) -> Any:
    """An empty matplotlib figure, sizes in inches.

    Raises:
        InvalidRequestError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise InvalidRequestError("plots need matplotlib: pip install 'fedattn[plots]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title)
    return figure


def save_figure(figure: Any, path: Path) -> list[Path]:
    """Write a figure as PNG and SVG beside each other; returns the files."""
    written = [path.with_suffix(suffix) for suffix in (".png", ".svg")]
    for file in written:
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    return written


def _draw_panel(axes: Any, summary: dict[str, dict[str, Any]], key: str) -> None:
    families: dict[str, list[tuple[float, float]]] = {}
    for name, row in summary.items():
        if name in _ENDS:
            axes.axhline(row[key], linestyle=_ENDS[name], color="gray", label=name)
            continue
        family = name.split(" ")[0].split("@")[0].split(":")[0]
        families.setdefault(family, []).append((row["kv_bytes"] / 1024, row[key]))
    for family, points in families.items():
        axes.plot(*zip(*sorted(points), strict=True), "o-", markersize=4, label=family)
