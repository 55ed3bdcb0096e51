"""`tlbcore record`."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from tlbcore.cli import _bounds, _common


def command(
    ctx: typer.Context,
    out: Annotated[Path | None, typer.Option(help="File to write; it must not exist.")] = None,
    run: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND...]", help="Record while this runs.")
    ] = None,
    duration: Annotated[
        str | None, typer.Option(help="How long, such as 90s, 10m, 2h, 3d; otherwise until Ctrl-C.")
    ] = None,
    isolated: Annotated[
        str | None,
        typer.Option(help="CPUs to watch; those of nohz_full= or isolcpus= if left out.", metavar="CPUS"),
    ] = None,
    process: Annotated[
        str | None,
        typer.Option(
            help="Record shootdowns of user ranges, on every CPU, for tlbcore explain --process: a name, an id, or a "
            "control group (/a/b).",
            metavar="NAME|PID|CGROUP",
        ),
    ] = None,
    flight: Annotated[
        bool,
        typer.Option(
            "--flight", help="Flight recorder: keep a ring, save it only when an isolated CPU was hit."
        ),
    ] = False,
    noise: Annotated[
        str | None,
        typer.Option(
            help="Flight recorder that saves the ring when an interrupt, soft interrupt or other task keeps an "
            "isolated CPU from its task for longer than this, such as 20us.",
            metavar="TIME",
        ),
    ] = None,
    snapshots: Annotated[
        int, typer.Option(help="Stop the flight recorder after this many saved pieces; 0: never.", min=0)
    ] = 0,
    stacks: Annotated[bool, typer.Option("--stacks", help="Record call chains of flushes and IPIs.")] = False,
    kprobes: Annotated[
        bool, typer.Option("--kprobes/--no-kprobes", help="Probe who flushes kernel ranges.")
    ] = True,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show meanwhile what takes the CPUs, as tlbcore top does.")
    ] = False,
    interval: Annotated[
        str, typer.Option(help="How often --watch and --prometheus show it.", metavar="TIME")
    ] = "1s",
    prometheus: Annotated[
        Path | None,
        typer.Option(
            help="Keep this file of metrics up to date meanwhile (textfile collector).", metavar="FILE"
        ),
    ] = None,
    buffer_kb: Annotated[int, typer.Option(help="Ring buffer per CPU, KiB.", min=64)] = 4096,
    clean: Annotated[
        bool, typer.Option("--clean", help="Record nothing: remove what recorders left that no longer run.")
    ] = False,
) -> None:
    """Record a trace on this machine; everything is restored afterwards. Needs root."""
    given = _common.given(ctx)
    if clean:
        if out is not None or run:
            _common.fail("--clean records nothing: without --out and a command")
        _bounds.refuse(ctx, given - {"clean"}, "--clean records nothing")
        _clean()
        return
    if out is None:
        _common.fail("missing option '--out'")
    from tlbcore._input.cpus import show_cpus
    from tlbcore.cli.top import shown
    from tlbcore.trace import parse_cpus
    from tlbcore.trace.recorder.process import find_processes
    from tlbcore.trace.recorder.run import record
    from tlbcore.trace.recorder.settings import Recording, Tracefs, duration_s, isolated_cpus, noise_us

    seconds = duration_s(duration) if duration is not None else None
    threshold = noise_us(noise) if noise is not None else None
    if snapshots and not flight and threshold is None:
        _common.fail("--snapshots needs a flight recorder: --flight or --noise TIME")
    if (watch or prometheus is not None) and (flight or threshold is not None):
        _common.fail("a flight recorder cannot be watched: its ring is read only when it is saved")
    if process is not None and (
        isolated is not None or flight or threshold is not None or watch or prometheus
    ):
        _common.fail(
            "--process records shootdowns of every CPU: without --isolated, --flight, --noise, --watch, --prometheus"
        )
    if not watch and prometheus is None:
        _bounds.refuse(ctx, given & {"interval"}, "nothing is shown without --watch or --prometheus")
    every = duration_s(interval)
    processes = find_processes(process) if process is not None else ()
    tracefs = Tracefs.find()
    cpus = () if processes else parse_cpus(isolated) if isolated is not None else isolated_cpus()
    what = Recording(
        out=out,
        isolated=cpus,
        seconds=seconds,
        command=tuple(run or ()),
        kprobes=kprobes,
        stacks=stacks,
        flight=flight,
        noise_us=threshold,
        snapshots=snapshots,
        buffer_kb=buffer_kb,
        processes=processes,
    )
    watched = f"CPUs {show_cpus(cpus)}" if not processes else f"shootdowns for {process}"
    if sys.stderr.isatty() and seconds is None and not run:
        print(f"recording {watched} until Ctrl-C", file=sys.stderr)
    if watch or prometheus is not None:
        with shown(cpus, every, prometheus, live=watch) as watcher:
            done = record(what, tracefs, watch=watcher)
    else:
        done = record(what, tracefs)
    print(f"{out}: {done.bytes:,} bytes in {done.seconds:.1f} s, {watched}")
    share = done.cpu_s / done.seconds if done.seconds else 0.0
    print(f"  {done.lost:,} events lost; the recorder took {done.cpu_s:.2f} s of CPU time ({share:.1%})")
    if flight or threshold is not None:
        print(f"  {done.snapshots} snapshots")
    if done.refused:
        print(f"  not recorded, for this kernel lacks or refuses it: {', '.join(done.refused)}")
    if done.unset:
        print(f"  not set, for this kernel lacks or refuses it: {', '.join(done.unset)}")
    if done.left:
        print(f"  still there, others use it: {', '.join(done.left)}")
    print(f"  tlbcore explain {quote(str(out))}" + (f" --process {quote(process)}" if process else ""))
    if done.status:
        _common.fail(f"the command ended with status {done.status}")


def _clean() -> None:
    from tlbcore.trace.recorder import guard
    from tlbcore.trace.recorder.settings import Tracefs

    tracefs = Tracefs.find().path
    removed, left, unknown = guard.clean(tracefs)
    for what in removed:
        print(f"removed: {what}")
    for what in unknown:
        print(f"left alone, whether its recorder runs is not known here: {what}")
    if unknown:
        print(f"  remove one whose recorder is gone: rmdir {tracefs}/instances/NAME")
    elif not removed:
        print("nothing was left by a recorder that no longer runs")
    if left:
        _common.fail(f"not removed: {', '.join(left)}")
