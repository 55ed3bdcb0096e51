"""`tlbcore explain`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbcore.cli import _bounds, _common, _trace

if TYPE_CHECKING:
    from tlbcore.trace import Trace
    from tlbcore.trace.explanation import Explanation

_CONDITION_MET = 1
_NOT_RECORDED = 3


def command(
    ctx: typer.Context,
    traces: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TRACE...",
            help="ftrace text, trace-cmd report, perf script or trace.dat; plain, .gz, .xz, .zst, or -. "
            "Two or more (BEFORE AFTER) are explained one by one and compared, first against last.",
            show_default=False,
        ),
    ] = None,
    isolated: Annotated[
        str | None,
        typer.Option(
            help="Isolated CPUs, such as 2-3,8. Left out, they are deduced from the trace.", metavar="CPUS"
        ),
    ] = None,
    process: Annotated[
        str | None,
        typer.Option(
            help="Explain the shootdowns of user ranges that this process sends: a name, or an id.",
            metavar="NAME|PID",
        ),
    ] = None,
    all_cpus: Annotated[
        bool,
        typer.Option(
            "--all-cpus", help="Explain the shootdowns of user ranges of all processes, on every CPU."
        ),
    ] = False,
    machine: Annotated[
        str | None,
        typer.Option(
            help="With --process or --all-cpus: predict kernel entries and TLB refills for this preset.",
            metavar="NAME",
        ),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            help="With --process or --all-cpus: predict what is left if N flushes in a row share one (8 and 32).",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    perfetto: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write a timeline that ui.perfetto.dev opens; as JSON of Chrome's trace events if FILE ends in "
            ".json.",
        ),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the report as one self-contained page of HTML."),
    ] = None,
    short: Annotated[
        bool,
        typer.Option(
            "--short", help="Three lines, for a status bar or a chat: how much, by what, what helps."
        ),
    ] = False,
    legend: Annotated[
        bool,
        typer.Option("--legend", help="End with what the words of the report mean; `tlbcore words` has all."),
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="The files are one recording in pieces, such as per-CPU files.")
    ] = False,
    lines: Annotated[
        str | None,
        typer.Option(
            help="Print the raw lines behind a figure: a cause such as vmalloc_purge, purges, unexplained, "
            "holes or broken.",
            metavar="FIGURE",
        ),
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            help="Exit with status 1 if this holds on an isolated CPU, 3 if the recording does not tell: "
            "'per_hour > 10', 'longest_us > 50', 'set_memory > 0', 'kworker.ms > 1'. With BEFORE AFTER also 'more': "
            "the last has more of something than the first, and the difference is real.",
            metavar="CONDITION",
        ),
    ] = None,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(
            help="Count only between two texts in trace_marker, each time they come.", metavar="BEGIN END"
        ),
    ] = None,
    interrupts: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            help="Copies of /proc/interrupts before and after: coverage, or counts if there is no trace.",
            metavar="BEFORE AFTER",
        ),
    ] = None,
) -> None:
    """Explain who interrupted the isolated CPUs in a trace, and why; or what shootdowns of user ranges cost."""
    if short and (json or lines is not None):
        _common.fail("--short is a form of the report: leave --json and --lines out")
    if lines is not None and json:
        _common.fail("--lines prints raw lines: leave --json out")
    if legend and (json or lines is not None or short):
        _common.fail("--legend explains the words of the whole report: leave --json, --lines and --short out")
    if process is not None or all_cpus:
        if process is not None and all_cpus:
            _common.fail("--all-cpus counts every process: leave out --process")
        given = _common.given(ctx)
        if others := [name for name in ("isolated", "lines", "fail_if", "interrupts") if name in given]:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in others)
            _common.fail(f"{names}: of isolated CPUs, not of shootdowns of user ranges")
        if short and html is None and (machine is not None or batch):
            _common.fail("--short predicts nothing: leave --machine and --batch out")
        form = _Form(json=json, short=short, legend=legend, html=html, perfetto=perfetto)
        _shootdowns(traces or [], process, between, machine, batch or (8, 32), form, merge=merge)
        return
    if batch:
        _common.fail("--batch predicts for --process or --all-cpus: give one of them")
    if machine is not None:
        _common.fail("--machine predicts what --process or --all-cpus count: give one of them")
    if not traces:
        if interrupts is not None:
            known = {"interrupts", "isolated"}
            _bounds.refuse(ctx, _common.given(ctx) - known, "two copies of /proc/interrupts are counts alone")
        _snapshots(interrupts, isolated)
        return
    if interrupts is not None:
        if lines is not None or short:
            _common.fail("--interrupts adds a table to the report: leave --lines and --short out")
        if between is not None:
            _common.fail("--interrupts counts the whole recording, --between parts of it: leave one out")
        if len(traces) > 1 and not merge:
            _common.fail("--interrupts is about one recording: name one, or --merge its pieces")
    if perfetto is not None and len(traces) > 1 and not merge:
        _common.fail("--perfetto shows one recording: name one, or --merge its pieces")
    from tlbcore.trace.conditions import Condition
    from tlbcore.trace.explanation import explain
    from tlbcore.trace.interrupts import coverage, noted, read_interrupts
    from tlbcore.trace.report.compared import comparison_rows, comparison_text
    from tlbcore.trace.report.words import coverage_text

    if lines is not None:
        _check_cause(lines)
    compared = [text for text in fail_if or () if text.strip() == "more"]
    if compared and (merge or len(traces) < 2):
        _common.fail("condition 'more' compares recordings: give two or more")
    conditions = [Condition.parse(text) for text in fail_if or () if text.strip() != "more"]
    snapshots = tuple(read_interrupts(path) for path in interrupts or ())
    found: list[tuple[Explanation, str | None]] = []
    documents: list[dict[str, Any]] = []
    for path in [traces] if merge else traces:
        whole, damage = _trace.read(path, isolated, between)
        found.append((explain(whole), damage))
        # What the kernel counted is of the whole recording.
        pair = snapshots or (noted(whole) if between is None else None)
        covered = coverage(whole, *pair) if pair else []
        documents.append({**found[-1][0].to_json(), **({"coverage": covered} if pair else {})})
        if not json:
            if len(found) > 1 and not short:
                print()
            if short:
                from tlbcore.trace.report.short import short as in_short

                if len(traces) > 1 and not merge:
                    print(f"{path}:")
                print(in_short(found[-1][0]))
            elif lines is None:
                print(found[-1][0])
                if covered:
                    print(f"\n{coverage_text(covered)}")
            else:
                _print_lines(found[-1][0], lines)
    explanations = [e for e, _ in found]
    if len(found) == 1:
        document = _common.document("explain", 1, **documents[0])
    else:
        rows = comparison_rows(explanations)
        document = _common.document("comparison", 1, traces=documents, comparison=rows)
    if json:
        _common.print_document(document)
    elif lines is None and not short:
        if len(found) > 1:
            print(f"\n{comparison_text(explanations)}")
        if legend:
            _common.print_legend("\n".join(map(str, explanations)))
    if perfetto is not None:
        explanations[0].trace.to_perfetto(perfetto)
        print(f"{perfetto}: written", file=sys.stderr)
    if html is not None:
        from tlbcore._output.html import reports

        if len(found) == 1:
            page = reports.explain(explanations[0], document)
        else:
            page = reports.explain_pair(explanations, comparison_text(explanations), document)
        _common.write_page(html, page)
    for e, damage in found:
        _trace.finish(e.trace, damage)
    met = [line for e in explanations for condition in conditions for line in condition.met(e.trace)]
    undecided = [line for e in explanations for condition in conditions for line in condition.open(e.trace)]
    if compared:
        rows = comparison_rows(explanations)
        met += [f"more {row['cause']} than before" for row in rows if row["change"] == "more"]
        undecided += [
            f"{rows[0]['cause']} interrupts: not recorded" for _ in rows[:1] if rows[0]["ratio_low"] is None
        ]
    for line in met or undecided:
        typer.echo(f"fail-if: {line}", err=json)
    if met or undecided:
        raise typer.Exit(_CONDITION_MET if met else _NOT_RECORDED)


@dataclass(frozen=True)
class _Form:
    """How a report is printed, and the page it is written to."""

    json: bool
    short: bool
    legend: bool
    html: Path | None
    perfetto: Path | None


def _shootdowns(
    traces: list[str],
    process: str | None,
    between: tuple[str, str] | None,
    machine: str | None,
    batches: Sequence[int],
    form: _Form,
    *,
    merge: bool,
) -> None:
    from tlbcore.trace.shootdown import shootdowns

    if not traces:
        _common.fail("missing argument 'TRACE...'")
    if len(traces) > 1 and not merge:
        _common.fail("shootdowns are counted in one recording: give one TRACE, or --merge for its pieces")
    with _common.progress("reading", "bytes") as advance:
        found = shootdowns(
            traces if merge else traces[0],
            process=process,
            between=between,
            machine=machine,
            batches=batches,
            progress=advance,
        )
    if form.json:
        _common.print_json("shootdowns", 1, **found.to_json())
    elif form.short:
        from tlbcore.trace.report.short import short_of_shootdowns

        print(short_of_shootdowns(found))
    else:
        print(found)
    if form.legend:
        _common.print_legend(str(found))
    if form.perfetto is not None:
        found.to_perfetto(form.perfetto)
        print(f"{form.perfetto}: written", file=sys.stderr)
    if form.html is not None:
        from tlbcore._output.html.shootdowns import shootdowns as page

        _common.write_page(form.html, page(found, _common.document("shootdowns", 1, **found.to_json())))
    if found.damage is not None:
        _common.fail(found.damage)
    kinds = found.figures["report"]["kinds"]
    if not (
        kinds["csd"] or kinds["tlb_flush"] or kinds["range_probe"] or found.figures["report"]["switched_on"]
    ):
        _common.fail(
            f"{found.path}: cannot say whether user ranges were flushed (no tlb_flush, csd or probe events)"
        )


def _snapshots(interrupts: tuple[Path, Path] | None, isolated: str | None) -> None:
    from tlbcore.trace import parse_cpus
    from tlbcore.trace.interrupts import read_interrupts, snapshot_text

    if interrupts is None:
        _common.fail("missing argument 'TRACE...'")
    if isolated is None:
        _common.fail("a pair of /proc/interrupts does not tell which CPUs are isolated: give --isolated")
    before, after = (read_interrupts(path) for path in interrupts)
    cpus = parse_cpus(isolated)
    have = {cpu for counts in after.counts.values() for cpu in counts}
    if absent := sorted(set(cpus) - have):
        _common.fail(f"{after.path}: has no CPU {', '.join(map(str, absent))}")
    print(snapshot_text(before, after, cpus))


_OTHER_LINES = ("purges", "unexplained", "holes", "broken")


def _check_cause(name: str) -> None:
    from tlbcore._input.names import unknown
    from tlbcore.trace import causes

    if name not in causes and name not in _OTHER_LINES:
        _common.fail(unknown("figure", name, (*causes, *_OTHER_LINES)))


def _wanted(trace: Trace, figure: str) -> set[int]:
    """Lines behind a cause or one of the other figures."""
    cpus = trace.figures["report"]["isolated"]
    if figure == "holes":
        return {hole["line"] for hole in trace.figures["holes"]}
    if figure == "broken":
        return {broken["line"] for broken in trace.figures["broken_first"]}
    if figure == "unexplained":
        return {u["line"] for cpu in cpus for u in cpu["baseline"]["unexplained_first"]}
    if figure == "purges":
        return set(trace.purges["line"].tolist())
    wanted = {line for cpu in cpus for line in cpu["lines"].get(figure, [])}
    mine = trace.calls["cause"] == figure
    for column in ("queued_line", "ran_line"):
        wanted.update(trace.calls[column][mine].tolist())
    return wanted


def _print_lines(e: Explanation, figure: str) -> None:
    from tlbcore import _core

    trace = e.trace
    if trace.path == "-" or " + " in trace.path:
        _common.fail("raw lines need one file: not standard input, not merged ones")
    wanted = _wanted(trace, figure)
    wanted.discard(0)
    for number, text in _core.trace_lines(trace.path, sorted(wanted)):
        print(f"{trace.path}:{number}: {text}")
