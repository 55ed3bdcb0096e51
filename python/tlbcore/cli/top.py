"""`tlbcore top`, and what `tlbcore record --watch` shares with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlbcore.cli import _common

if TYPE_CHECKING:
    from tlbcore.trace.recorder.watch import Reading, Watch


def command(
    run: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="Watch while this runs.")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="How long, such as 90s, 10m, 2h, 3d; otherwise until Ctrl-C.")
    ] = None,
    isolated: Annotated[
        str | None,
        typer.Option(help="CPUs to watch; those of nohz_full= or isolcpus= if left out.", metavar="CPUS"),
    ] = None,
    interval: Annotated[str, typer.Option(help="How often to show the counts.", metavar="TIME")] = "1s",
    prometheus: Annotated[
        Path | None,
        typer.Option(help="Keep this file of metrics up to date (textfile collector).", metavar="FILE"),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a line of JSON each interval.")] = False,
    buffer_kb: Annotated[int, typer.Option(help="Ring buffer per CPU, KiB.", min=64)] = 4096,
) -> None:
    """Watch what takes isolated CPUs from their tasks, live. Needs root; everything is restored afterwards."""
    import os

    from tlbcore.trace import parse_cpus
    from tlbcore.trace.recorder.run import record
    from tlbcore.trace.recorder.settings import Recording, Tracefs, duration_s, isolated_cpus

    seconds = duration_s(duration) if duration is not None else None
    every = duration_s(interval)
    tracefs = Tracefs.find()
    cpus = parse_cpus(isolated) if isolated is not None else isolated_cpus()
    with shown(cpus, every, prometheus, json=json) as watch:
        what = Recording(
            out=Path(os.devnull),
            isolated=cpus,
            seconds=seconds,
            command=tuple(run or ()),
            kprobes=False,
            buffer_kb=buffer_kb,
        )
        done = record(what, tracefs, watch=watch)
    if done.left:
        print(f"still there, others use it: {', '.join(done.left)}", file=sys.stderr)
    if done.status:
        _common.fail(f"the command ended with status {done.status}")


@contextmanager
def shown(
    cpus: Sequence[int], interval_s: float, prometheus: Path | None, *, json: bool = False, live: bool = True
) -> Iterator[Watch]:
    """Give a watch whose readings are shown: a live table on a terminal, a table or line per interval elsewhere."""
    from tlbcore.trace.recorder.watch import Watch, json_line, table, write_metrics

    ways: list[Callable[[Reading, Reading | None], None]] = []
    if prometheus is not None:
        if not prometheus.absolute().parent.is_dir():
            _common.fail(f"{prometheus}: its directory is not there")
        ways.append(lambda reading, _: write_metrics(prometheus, reading))

    def show(reading: Reading, before: Reading | None) -> None:
        for way in ways:
            way(reading, before)

    watch = Watch(cpus, show, interval_s=interval_s)
    if json:
        ways.append(lambda reading, _: print(json_line(reading), flush=True))
        yield watch
        return
    console = _common.console()
    if not (live and console.is_terminal):
        if live:
            ways.append(lambda reading, before: console.print(table(reading, before)))
        yield watch
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as screen:
        ways.append(lambda reading, before: screen.update(table(reading, before), refresh=True))
        yield watch
