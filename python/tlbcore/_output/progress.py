"""How far a long computation is: one bar with rate and time left, on a terminal or in a notebook.

Functions that take `progress=` accept a callback, or True for this bar. Nothing is shown unless it is asked for.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any

from tlbcore._output.visible import drawn_on

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

Progress = Callable[[float, float | None], None]

REFRESH_SECONDS = 0.2


@contextmanager
def shown(progress: Progress | bool | None, what: str, unit: str = "") -> Iterator[Progress | None]:
    """Turn the argument `progress` of a public function into a callback, or None.

    Raises `ModuleNotFoundError` naming the extra when True is asked for and rich is missing.
    """
    if progress is True:
        with bar(what, unit) as advance:
            yield advance
    else:
        yield progress or None


@contextmanager
def bar(what: str, unit: str = "", stream: IO[str] | None = None) -> Iterator[Progress]:
    """Show a bar with rate and time left: in the cell of a notebook, or on standard error if that is a terminal.

    Yields `advance(done, total)`; `total` is None when it is not known.
    """
    stream = drawn_on(stream or sys.stderr)
    if "IPython" not in sys.modules and not stream.isatty():  # Rich takes as long to load as a small search
        if find_spec("rich") is None:
            raise _needs_rich()
        yield lambda _done, _total: None
        return
    try:
        from rich import progress as bars
        from rich.console import Console
    except ModuleNotFoundError:
        raise _needs_rich() from None
    notebook = Console().is_jupyter
    if not notebook and not stream.isatty():
        yield lambda _done, _total: None
        return
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn() if unit == "points" else bars.TaskProgressColumn(),
        bars.TextColumn(unit),
        _rate_column(bars),
        bars.TimeRemainingColumn(),
    )
    if notebook:
        console = Console(file=io.StringIO(), width=100, force_jupyter=False, record=True)
        # Never started: a cell is written by `_Cell`, which needs no ipywidgets.
        with _Cell(bars.Progress(*columns, console=console, auto_refresh=False), what) as cell:
            yield cell.advance
        return
    with bars.Progress(*columns, console=Console(file=stream, highlight=False), transient=True) as live:
        task = live.add_task(what, total=None)
        yield lambda done, total: live.update(task, completed=done, total=total)


def _needs_rich() -> ModuleNotFoundError:
    return ModuleNotFoundError(
        "progress=True needs the package rich: pip install 'tlbcore[cli]'", name="rich"
    )


def _rate_column(bars: Any) -> Any:
    class Rate(bars.ProgressColumn):  # type: ignore[misc]
        """Units per second."""

        def render(self, task: Any) -> Any:
            from rich.text import Text

            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s")

    return Rate()


class _Cell:
    """The bar as plain text in a notebook's cell, written again at most every `REFRESH_SECONDS`."""

    def __init__(self, bars: Bars, what: str) -> None:
        self._bars, self._task = bars, bars.add_task(what, total=None)
        self._last = 0.0
        self._handle: Any = None

    def __enter__(self) -> _Cell:
        from IPython.display import display

        self._handle = display(self._text(), raw=True, display_id=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.update(self._text(), raw=True)

    def advance(self, done: float, total: float | None) -> None:
        self._bars.update(self._task, completed=done, total=total)
        if time.monotonic() >= self._last + REFRESH_SECONDS:
            self._last = time.monotonic()
            self._handle.update(self._text(), raw=True)

    def _text(self) -> dict[str, str]:
        console = self._bars.console
        console.print(self._bars.get_renderable())
        return {"text/plain": console.export_text().rstrip("\n")}
