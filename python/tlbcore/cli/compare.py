"""`tlbcore compare`."""

from __future__ import annotations

from pathlib import Path
from shlex import join, quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbcore._input import defaults
from tlbcore.cli import _bounds, _common

if TYPE_CHECKING:
    from tlbcore.simulation.compare import Comparison


def command(
    recordings: Annotated[
        list[str] | None,
        typer.Argument(help="None: recordings are compared by `tlbcore explain BEFORE AFTER`.", hidden=True),
    ] = None,
    scenario: Annotated[
        str,
        typer.Option(
            help="spawn-storm, rteval, dpdk-poll, trading, syscall-heavy, filter-attach, module-load, text-poke, quiet,"
            " user-shootdown, pthread-churn, hackbench, kernel-build."
        ),
    ] = "rteval",
    machine: Annotated[str, typer.Option(help="CPU model; see `tlbcore machines`.")] = defaults.MACHINE,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", help="Built-in name or .policy file; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first replication.")] = 1,
    replications: Annotated[
        int, typer.Option(help="Runs of each policy; two or more give confidence intervals.")
    ] = 1,
    duration: Annotated[float | None, typer.Option(help="Simulated seconds.")] = None,
    cpus: Annotated[int | None, typer.Option(help="Online CPUs.")] = None,
    isolated: Annotated[
        str | None, typer.Option(metavar="CPUS", help="Isolated CPUs, such as 2-3,8.")
    ] = None,
    paths: Annotated[
        Path | None,
        typer.Option(
            "--kernel",
            metavar="FILE",
            help="Paths of a kernel text (`tlbcore extract`) in place of linux.kernel's.",
        ),
    ] = None,
    kernel_version: _bounds.KernelVersion = None,
    pti: Annotated[str, typer.Option(help="on, off or auto (the CPU decides).")] = "auto",
    all_figures: Annotated[
        bool, typer.Option("--all-figures", help="Every quantile, and all CPUs together.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the report as one self-contained page of HTML."),
    ] = None,
) -> int:
    """Simulate one scenario under several policies. Two recordings: `tlbcore explain BEFORE AFTER`.

    The exit status is 1 if a run broke a rule.
    """
    if recordings:
        _common.fail(_refused(recordings))
    if json and all_figures:
        _common.fail("--json holds every figure: leave --all-figures out")
    from tlbcore.kernel import Kernel
    from tlbcore.scenarios import by_name
    from tlbcore.simulation import told
    from tlbcore.simulation.compare import DEFAULT_POLICIES, compare

    states = {"on": True, "off": False, "auto": None}
    if pti not in states:
        _common.fail(f"--pti takes on, off or auto: got {pti!r}")
    asked: list[Any] = list(policy or DEFAULT_POLICIES)
    if paths is not None or kernel_version is not None:
        asked = _common.standing_on(asked, kernel_version, paths)
    given: dict[str, Any] = {"duration_s": duration, "cpus": cpus, "isolated": isolated}
    load = by_name(scenario, **{name: value for name, value in given.items() if value is not None})
    kernel = Kernel(pti=states[pti], broadcast_tlb_flush=True)
    with _common.without_inert_warnings(), _common.progress("simulating", "s") as advance:
        result = compare(
            load,
            machine=machine,
            kernel=kernel,
            policies=asked,
            seed=seed,
            replications=replications,
            progress=lambda done, total: advance(done, total),
        )
    first = result.results[0]
    whole = _common.document(
        "compare",
        2,
        scenario=load.name,
        abstraction=load.abstraction,
        machine=first.machine,
        seed=seed,
        replications=replications,
        duration_s=first.duration_s,
        interrupted=result.interrupted,
        notes=told.notes(result),
        runs=_runs(result),
        table=result.table,
    )
    if json:
        _common.print_document(whole)
    else:
        _show(result, every=all_figures)
    if html is not None:
        from tlbcore._output.html import reports

        _common.write_page(html, reports.compare(result, whole))
    if result.interrupted:
        return _common.INTERRUPTED
    return 1 if any(run.violation is not None for run in result.results) else 0


def _refused(words: list[str]) -> str:
    """Return what is said of words without an option: names of policies, or recordings."""
    from tlbcore.policy import policies

    if all(word in policies or word.endswith(".policy") for word in words):
        return (
            f"policies are named by an option each: {' '.join(f'--policy {quote(word)}' for word in words)}"
        )
    return f"compares simulated policies; recordings are compared by `tlbcore explain {join(words)}`"


def _runs(result: Comparison) -> list[dict[str, Any]]:
    """Return every run by policy and seed: how far it came, and the rule that it broke."""
    return [
        {
            "policy": run.policy.name,
            "seed": run.seed,
            "duration_s": run.duration_s,
            "interrupted": run.interrupted,
            "violation": run.violation,
        }
        for run in result.results
    ]


def _show(result: Comparison, *, every: bool) -> None:
    from rich.table import Table

    from tlbcore.simulation import told
    from tlbcore.simulation.figures import CLASSES, figures

    first, table = result.results[0], result.table
    console = _common.console()
    console.print(
        f"{first.scenario.name} on {first.machine}, {first.scenario.cpus} CPUs "
        f"({len(first.scenario.isolated)} isolated), {told.simulated(result)} simulated"
    )
    printed = []
    for cpu_class in CLASSES if every else CLASSES[:2]:
        rows = [i for i, name in enumerate(table["cpu_class"]) if name == cpu_class]
        if not rows:
            continue
        title = "per CPU, all together" if cpu_class == "all" else f"per {cpu_class} CPU"
        shown = Table(title=f"{title} (predicted)", box=None, title_justify="left")
        shown.add_column("figure")
        for i in rows:
            shown.add_column(str(table["policy"][i]), justify="right")
        for figure in figures():
            cells = [told.cell(table, figure.name, i) for i in rows]
            if (every or figure.brief) and any(cell not in ("-", "0") for cell in cells):
                shown.add_row(figure.name, *cells)
                printed += cells
        _common.print_table(shown)
    for line in told.explained(printed):
        console.print(line)
    for note in told.notes(result):
        console.print(f"note: {note}")
    for line in told.remarks(result):
        console.print(line)
