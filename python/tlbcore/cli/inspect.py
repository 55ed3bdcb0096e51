"""`tlbcore inspect`."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbcore._output.width import wrapped
from tlbcore.cli import _bounds, _common

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.console import Console

    from tlbcore.inspect import Host

_TURN = {True: "yes", False: "no", None: "unknown"}


def _booted(cmdline: str) -> str:
    """Name the kernel by the image that the boot loader wrote into the line."""
    from tlbcore._input.boot_line import Release

    image = next((word for word in cmdline.split() if word.startswith("BOOT_IMAGE=")), "")
    if Release.of(image) is None:
        return "not given (--kernel)"
    return image.removeprefix("BOOT_IMAGE=").rpartition("/")[2] + " (BOOT_IMAGE)"


def command(
    ctx: typer.Context,
    root: Annotated[
        Path | None, typer.Option("--root", help="A directory of collected files instead of this machine.")
    ] = None,
    cmdline: Annotated[
        str | None,
        typer.Option(
            "--cmdline",
            help="A kernel command line instead of a machine, or - for standard input: what the kernel makes of it.",
            metavar="TEXT",
        ),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option("--kernel", help="The kernel of --cmdline, as uname -r prints it.", metavar="RELEASE"),
    ] = None,
    cpus: Annotated[
        str | None, typer.Option("--cpus", help="How many CPUs the machine of --cmdline has.", metavar="N")
    ] = None,
    collect: Annotated[
        Path | None, typer.Option("--collect", help="Copy the files to this directory, for --root elsewhere.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what each policy would do on this machine and why, and how well its isolated CPUs are isolated."""
    if collect is not None:
        if cmdline is not None:
            raise typer.BadParameter("--collect copies files, and --cmdline has none")
        others = _common.given(ctx) - {"collect", "root"}
        _bounds.refuse(ctx, others, "--collect copies files and inspects nothing")
        from tlbcore.inspect._collect import collect as copy

        names = copy(collect, root=root)
        print(f"{len(names)} files in {collect}; tlbcore inspect --root {collect}")
        return
    from tlbcore.inspect import inspect_host

    if cmdline == "-":
        cmdline = sys.stdin.read()
    host = inspect_host(root, cmdline=cmdline, release=kernel, cpus=cpus)
    if json:
        _common.print_json(
            "inspect",
            1,
            root=host.root,
            machine=None if host.machine is None else host.machine.name,
            machine_fit=host.machine_fit,
            cpu=host.cpu,
            kernel={name: value for name, value in _fields(host.kernel).items() if name != "config"},
            boot=host.boot,
            online=host.online,
            nohz_full=host.nohz_full,
            isolated=host.isolated,
            isolation=host.isolation,
            policies=host.policies,
            findings=host.findings,
            not_checked=[{"check": check, "lacks": lacks} for check, lacks in host.not_checked],
        )
        return
    _show(_common.console(), host)


def _fields(value: object) -> dict[str, object]:
    import dataclasses

    assert dataclasses.is_dataclass(value)
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _show(console: Console, host: Host) -> None:
    from rich.table import Table
    from rich.text import Text

    from tlbcore._input.cpus import show_cpus

    def line(name: str, text: str) -> None:
        facts.add_row(Text(name), Text(text))

    facts = Table(box=None, pad_edge=False, show_header=False)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    cpu, kernel = host.cpu, host.kernel
    where = f"{len(host.online)} online ({show_cpus(frozenset(host.online))})"
    if cpu is not None:
        guest = ", guest" if cpu.hypervisor else ""
        signed = f", signature {cpu.signature}" if cpu.signature else ""
        line("cpu", f"{cpu.name or cpu.arch}{signed}{guest}; {where}")
        line("preset", f"{host.machine.name}: {host.machine_fit}" if host.machine else host.machine_fit)
        line("kernel", f"{kernel.release}; configuration: {kernel.config_from or 'not found'}")
    else:
        line(
            "kernel",
            f"{kernel.release or _booted(kernel.cmdline)}; CPUs 0-{max(host.online)} taken for all there are",
        )
    line("", " ".join(kernel.cmdline.split()))
    for at, option in enumerate(host.boot["option"].tolist()):
        flags, cpus, status, why = (str(host.boot[name][at]) for name in ("flags", "cpus", "status", "why"))
        line(
            "", f"{option}: {status}{f', {flags} of CPUs {cpus}' if cpus else ''}{f' ({why})' if why else ''}"
        )
    if kernel.managed_by is not None:
        line("", f"written by {kernel.managed_by}: change it there")
    if cpu is not None and cpu.arch == "x86":
        line(
            "features",
            f"PTI {_TURN[kernel.pti]}{f' ({kernel.pti_from})' if kernel.pti_from else ''}, PCID "
            f"{_TURN[cpu.pcid]}, "
            f"INVPCID {_TURN[cpu.invpcid]}, INVLPGB {_TURN[cpu.invlpgb]}; Meltdown: {cpu.meltdown or 'unknown'}",
        )
        limit = kernel.lazy_max_pages
        line(
            "flushing",
            f"page by page up to {kernel.flush_ceiling_pages or 'an unknown number of'} pages; a purge after "
            + (
                f"{limit:,} lazily freed pages, which is {limit // 5 + 1:,} kernel stacks"
                if limit is not None
                else "an unknown number of lazily freed pages"
            ),
        )
    line("isolated", _isolation(host))
    console.print(facts)

    if cpu is not None:
        console.print("\n[b]What each policy would do here, were it in this kernel[/b]", markup=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for (verdict, spares, cost, reason), names in _grouped(host.policies).items():
        extra = f" Spares CPUs {spares}." if spares else ""
        table.add_row(Text(verdict), Text(f"{', '.join(names)}: {reason}{extra}{cost}"))
    console.print(table)

    found = host.findings
    count = len(found["check"])
    console.print(f"\n[b]Isolation checklist: {count} finding{'' if count == 1 else 's'}[/b]", markup=True)
    for at, check in enumerate(found["check"]):
        severity = str(found["severity"][at])
        style = {"error": "bold red", "warning": "yellow"}.get(severity, "")
        heading = Text(f"{severity}: ", style=style) + Text(f"{found['found'][at]}  [{check}]")
        console.print(heading)
        for name in ("reason", "remedy", "source"):
            # No wrapping inside a remedy's command: it is copied.
            text = f"    {name:7} {found[name][at]}"
            console.print(Text(text if name == "remedy" else wrapped(text, console.width)), soft_wrap=True)
    if host.not_checked:
        checks: dict[str, list[str]] = {}
        for check, file in host.not_checked:
            checks.setdefault(file, []).append(check)
        lacks = "; ".join(
            f"{', '.join(names) if len(names) < 8 else f'{len(names)} checks'}: {file}"
            for file, names in checks.items()
        )
        console.print(Text(f"\nnot checked, and what it would take: {lacks}"))


def _grouped(rows: Mapping[str, NDArray[Any]]) -> dict[tuple[str, str, str, str], list[str]]:
    """Policies with the same outlook, in the order of the table."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for at, name in enumerate(rows["policy"].tolist()):
        always, owed = float(rows["entry_ns"][at]), float(rows["owed_ns"][at])
        cost = ""
        if rows["entry_ops"][at] and math.isnan(always):
            cost = " What each entry would cost is not known without a preset."
        elif rows["entry_ops"][at]:
            when = f", {owed:.0f} ns when a flush is owed" if owed > always else ""
            mark = rows["entry_mark"][at]
            cost = f" Each system call there costs {always:.0f} ns more{when} ({mark}; refills not included)."
        key = (str(rows["verdict"][at]), str(rows["spares"][at]), cost, str(rows["reason"][at]))
        groups.setdefault(key, []).append(name)
    return groups


def _isolation(host: Host) -> str:
    from tlbcore._input.cpus import show_cpus

    if not host.isolated:
        return "none"
    parts = []
    columns = host.isolation
    for name, words in (
        ("nohz_full", "no tick"),
        ("domain", "outside scheduler domains"),
        ("cpuset", "by cpuset partition"),
        ("managed_irq", "no managed interrupts"),
        ("rcu_offloaded", "RCU callbacks offloaded"),
    ):
        cpus = frozenset(columns["cpu"][columns[name]].tolist())
        if cpus:
            parts.append(f"{words}: {show_cpus(cpus)}")
    if away := frozenset(host.isolated) - frozenset(host.online):
        parts.insert(0, f"not online: {show_cpus(away)}")
    return f"{show_cpus(frozenset(host.isolated))} ({'; '.join(parts)})"
