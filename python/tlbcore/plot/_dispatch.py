"""Which function draws a result: the one table from kinds of results to drawings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbcore._core import ConfigError
from tlbcore._input.door import door
from tlbcore._output.files import keep_apart
from tlbcore.plot import _canvas, checked, measured, simulated, translated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tlbcore._output.result import Result

# Class of the result -> what draws it, and the rows that make the figure higher (None: the usual height).
_DRAWN: Mapping[str, Callable[..., Axes]] = {
    "BreakEven": simulated.break_even,
    "Calibration": measured.calibration,
    "Comparison": simulated.comparison,
    "Explanation": measured.explanation,
    "MissCurve": translated.miss_curve,
    "Needs": checked.needs,
    "Repairs": checked.repairs,
    "Replay": measured.replay,
    "Shootdowns": measured.shootdowns,
    "SimResult": simulated.run,
    "Sweep": simulated.swept,
    "TlbResult": translated.access,
    "Trace": measured.recording,
    "Translation": translated.translation,
    "Validation": measured.validation,
    "Verdict": checked.verdict,
    "VerdictTable": checked.verdict_table,
}
_ROW = 0.2  # inches
_TALL: Mapping[str, Callable[[Any], int]] = {
    "Explanation": measured.causes_of,
    "Needs": len,
    "Repairs": len,
    "Trace": measured.causes_of,
    "Validation": lambda result: len(result.rows),
    "VerdictTable": lambda result: len({row.policy for row in result}),
    "Verdict": lambda result: len(result.cases or (result,)),
}


@door
def draw(
    result: Result,
    *arguments: Any,
    axes: Axes | None = None,
    columns: int = 1,
    file: str | Path | None = None,
    **options: Any,
) -> Axes:
    """Draw a result with the function of its kind; what `result.plot` does.

    `axes` is where to draw, otherwise a new figure of one or two `columns` is made; `file` is written too. Further
    arguments are those of the function. Raises `ConfigError` for a result that has no figures to draw.
    """
    name = type(result).__name__
    if name not in _DRAWN:
        raise ConfigError(f"a {name} is words, with nothing to draw: print it")
    if file is not None:
        keep_apart(Path(file), result._read())
    if axes is None:
        tall = _TALL.get(name)
        usual = _canvas.SIZES[1][1]
        height = None if tall is None else max(usual, 0.8 + _ROW * tall(result))
        new = _canvas.figure(columns, height=height)
    else:
        new = axes
    try:
        with _canvas.style() if axes is None else nullcontext():
            made = _DRAWN[name](new, result, *arguments, **options)
    except BaseException:
        if axes is None:
            import_module("matplotlib.pyplot").close(new.figure)
        raise
    if file is not None:
        _canvas.save(made, file)
    return made
