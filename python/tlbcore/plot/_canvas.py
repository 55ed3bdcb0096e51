"""Figures of a paper's sizes, colours, words on axes, and files."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tlbcore._core import ConfigError
from tlbcore._input.door import door
from tlbcore._output.files import replace_file
from tlbcore._output.visible import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours that colour-blind readers can tell apart (Okabe and Ito, 2008), the darker ones first."""

SIZES: Mapping[int, tuple[float, float]] = {1: (3.35, 2.3), 2: (7.0, 2.9)}
"""Width and height in inches of a figure of one or two columns of a journal's page (85 and 178 mm)."""

MARKERS = "osD^vP*"
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)))

_STYLE: Mapping[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8,
    "font.size": 8,
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
}
_FILES: Mapping[str, Any] = {
    "pdf.fonttype": 42,  # what journals take: text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "tlbcore",  # the same figure is the same file
    "savefig.dpi": 300,
}
_UNITS = {
    "hz": "1/s",
    "ns": "ns",
    "us": "us",
    "ms": "ms",
    "s": "s",
    "mib": "MiB",
    "kib": "KiB",
    "pages": "pages",
}
_WORDS = {
    "interference_us_per_hour": "Time of interruptions of user mode",
    "exposure_mean_ns": "Mean window in the kernel with a flush owed",
}


def needed() -> Any:
    """Import Matplotlib; raises `ModuleNotFoundError` that says how to get it."""
    try:
        import matplotlib as library
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "this needs the package matplotlib: pip install 'tlbcore[plot]'", name="matplotlib"
        ) from None
    return library


@contextmanager
def style() -> Iterator[None]:
    """Return a context in which Matplotlib draws as `figure` does: small type, open axes."""
    # Not rc_context: it would also undo what a notebook's backend sets when the first figure is made.
    settings = needed().rcParams
    before = {name: settings[name] for name in _STYLE}
    settings.update(_STYLE)
    try:
        yield
    finally:
        settings.update(before)


@door
def figure(columns: int = 1, *, height: float | None = None) -> Axes:
    """Return the axes of a new figure as wide as one or two columns of a journal's page.

    `height` in inches, where the usual one does not fit. The figure is pyplot's, so that a notebook shows it. Raises
    `ConfigError` for another number of columns.
    """
    needed()
    if columns not in SIZES or isinstance(columns, bool):
        raise ConfigError(f"columns must be 1 or 2: got {columns!r}")
    import matplotlib.pyplot as plt

    width, usual = SIZES[columns]
    with style():
        _, axes = plt.subplots(figsize=(width, height or usual), layout="constrained")
    made: Axes = axes
    return made


@door
def save(axes: Axes, file: str | Path) -> Path:
    """Write the figure of an axes as PDF, SVG or PNG (300 dots per inch), by the file's ending; return its path.

    The same figure is written as the same bytes. Raises `ConfigError` for another ending, `OSError` if it cannot be
    written.
    """
    library = needed()
    path = Path(file)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("pdf", "svg", "png"):
        raise ConfigError(f"{path}: a figure is written as .pdf, .svg or .png")
    whole: Figure = axes.figure  # type: ignore[assignment, unused-ignore]
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]
    out = io.BytesIO()
    with library.rc_context({**_STYLE, **_FILES}):
        whole.savefig(out, format=kind, metadata=undated)
    replace_file(path, out.getvalue())
    return path


def series(i: int, *, inert: float = 0.0) -> dict[str, Any]:
    """Return colour, marker and dash of series i: hollow if its policy does nothing, half filled if in places."""
    return {
        "color": PALETTE[i % len(PALETTE)],
        "marker": MARKERS[i % len(MARKERS)],
        "linestyle": DASHES[i % len(DASHES)],
        "fillstyle": "none" if inert == 1 else "bottom" if inert else "full",
    }


def words(metric: str, unit: str = "", *, kind: str = "predicted") -> str:
    """Return the label of an axis for a figure or metric: its sentence, its unit, and where it comes from."""
    from tlbcore.simulation.figures import CLASSES, figures

    of = {figure.name: figure for figure in figures()}
    name, where = metric, ""
    for cpu_class in CLASSES[1:]:
        if metric.startswith(f"{cpu_class}_") and metric.removeprefix(f"{cpu_class}_") in of:
            name, where = metric.removeprefix(f"{cpu_class}_"), f", {cpu_class} CPUs"
    known = of.get(name)
    said = _WORDS.get(name, known.doc.rstrip(".") if known else name.replace("_", " ")) + where
    unit = unit or (known.unit if known else "")
    parts = [part for part in (share(unit), kind) if part]
    return "\n".join([*textwrap.wrap(said, 30), f"({', '.join(parts)})"])


def share(unit: str) -> str:
    """Return a unit as an axis shows it; a share has none."""
    return "" if unit == "1" else unit


def parameter(name: str) -> str:
    """Return the label of a parameter's axis: its words, and the unit that its name ends with.

    >>> parameter("spawn_hz"), parameter("kernel.pti"), parameter("cpus")
    ('spawn (1/s)', 'kernel.pti', 'cpus')
    """
    head, _, end = name.rpartition("_")
    if head and end in _UNITS:
        return f"{head.replace('_', ' ')} ({_UNITS[end]})"
    return name.replace("_", " ")


def marked(name: object, inert: Any) -> str:
    """Return a label that says where a policy does nothing, so that mainline is what is drawn."""
    part = float(np.mean(inert))
    label = one_line(str(name))
    return label if part == 0 else f"{label} (inert)" if part == 1 else f"{label} (partly inert)"


def logarithmic(set_scale: Any, values: Any) -> None:
    """Make a scale logarithmic where positive values span more than a factor of ten."""
    numbers = np.asarray(values, dtype=float)
    if len(numbers) and (numbers > 0).all() and numbers.max() / numbers.min() > 10:
        set_scale("log")


def rows(axes: Axes, labels: list[str], *, room: int = 34) -> None:
    """Name the rows of a horizontal chart, the first at the top."""
    axes.set_yticks(range(len(labels)), [textwrap.fill(label, room) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(False, axis="y")


def title(axes: Axes, text: str) -> None:
    """Set the title, on as many lines as a figure of one column needs."""
    axes.set_title(textwrap.fill(one_line(text), 46))


def empty(axes: Axes, text: str) -> Axes:
    """Say in the middle of the axes that there is nothing to draw, and why."""
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, wrap=True)
    return axes
