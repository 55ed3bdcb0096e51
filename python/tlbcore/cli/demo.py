"""`tlbcore demo`: the three questions, each answered on bundled data, in one screen."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files
from typing import Any

from tlbcore.cli import _common

TRACE = "modules.trace.txt.xz"
POLICIES = ("ipi", "ct-late", "coalesce-v7", "coalesce-v7-fixed")
CHECKED = ("ct-late", "coalesce-v7", "coalesce-v7-fixed")


def command() -> None:
    """Explain a bundled real trace, compare policies, check three of them."""
    with _common.progress("demo") as advance:
        parts: tuple[Callable[[], str], ...] = (_explained, _compared, _checked)
        shown = []
        for done, part in enumerate(parts):
            advance(done, len(parts))
            shown.append(part())
    _common.say("\n\n".join(shown))


def _heading(question: str, command: str) -> str:
    """Put the command that answers a question at the end of its line."""
    return f"{question}{command:>{min(_common.width(), 90) - len(question)}}"


def _explained() -> str:
    import tlbcore as tc
    from tlbcore.trace.report.words import span

    with as_file(files("tlbcore") / "data" / TRACE) as path:
        trace = tc.read_trace(path, between=("GT_BEGIN", "GT_END"))
    table, calls = tc.explain(trace).table, tc.explain(trace).initiators
    lines = [
        _heading("1. Who interrupted the isolated CPUs?", "tlbcore explain TRACE"),
        f"   A real kernel (6.12), CPUs 2-3 isolated; elsewhere a module is loaded and unloaded for"
        f" {trace.seconds:.0f} s.",
    ]
    for cpu in trace.isolated:
        here = table["cpu"] == cpu
        total = int(table["interrupts"][here].sum())
        lines.append(
            f"   CPU {cpu}: {total} interrupts, {total * 3600 / trace.seconds:,.0f} per hour (measured):"
        )
        for cause, count in zip(table["cause"][here][:3], table["interrupts"][here][:3], strict=True):
            chosen = (calls["cpu"] == cpu) & (calls["cause"] == cause)
            by = [
                f"{comm} {100 * n / calls['calls'][chosen].sum():.0f}%"
                for comm, n in zip(calls["comm"][chosen][:2], calls["calls"][chosen][:2], strict=True)
            ]
            lines.append(f"     {count:4} {cause:<18} {'from ' + ', '.join(by) if by else ''}".rstrip())
    replayed = tc.replay(trace, policies=list(POLICIES)).table
    left = []
    for policy in POLICIES:
        rows = replayed["policy"] == policy
        least, most = (int(replayed[f"interrupts_{end}"][rows].sum()) for end in ("low", "high"))
        left.append(f"{policy} {span(least, most)}")
    lines.append(f"   Interrupts left, both CPUs (predicted): {', '.join(left)}.")
    return "\n".join(lines)


def _compared() -> str:
    import tlbcore as tc
    from tlbcore.trace.report.words import columns, paragraph

    load = tc.scenarios.trading(duration_s=30, calls_hz=1000, spawn_hz=2000)
    comparison = tc.compare(load, machine="broadwell-ep-e5-2699v4", policies=POLICIES)
    table = comparison.table
    lines = [
        _heading("2. What does a policy cost, and whom?", "tlbcore compare --scenario trading"),
        *paragraph(
            "16 CPUs of an E5-2699 v4: 8 isolated ones make 1,000 system calls/s each, the others 2,000 forks/s "
            "together. Per CPU (predicted):",
            indent="   ",
        ),
    ]
    rows = [["policy", "IPIs/h", "interference us/h", "system call ns", "sender waits us"]]
    for policy in POLICIES:
        here = [i for i, name in enumerate(table["policy"]) if name == policy]
        isolated, housekeeping, _ = here
        rows.append(
            [
                policy,
                f"{table['ipis_per_hour'][isolated]:,.0f}",
                f"{table['interference_us_per_hour'][isolated]:,.0f}",
                f"{table['syscall_mean_ns'][isolated]:,.0f}",
                f"{table['wait_mean_us'][housekeeping]:.2f}",
            ]
        )
    return "\n".join(lines + columns(rows, "<>>>>", indent="   "))


def _checked() -> str:
    import tlbcore as tc
    from tlbcore.checker import HYPOTHESIS
    from tlbcore.trace.report.words import paragraph

    lines = [_heading("3. Is it safe?", "tlbcore check POLICY")]
    shown: Any = None
    for name in CHECKED:
        verdict = tc.check(name)
        shown = shown or (verdict.counterexample if name == "coalesce-v7" else None)
        bounded = f"{name}: {verdict.sentence.split('; assuming')[0]}."
        if (
            verdict.status == "verified"
            and verdict.hypothesis is not None
            and verdict.hypothesis.status == "violated"
        ):
            bounded += f" {HYPOTHESIS}: {verdict.hypothesis.status}."
        lines += paragraph(bounded, first="   ", indent="     ")
    lines.append("   The interleaving that breaks coalesce-v7:")
    # The lanes; where each op stands in the patch is in `tlbcore check coalesce-v7`.
    lines.append(str(shown).split("\n\n")[0])
    return "\n".join(lines)
