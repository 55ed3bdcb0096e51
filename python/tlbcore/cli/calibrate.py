"""`tlbcore calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlbcore.cli import _common


def command(
    out: Annotated[
        Path | None, typer.Option(help="Write a machine preset here, for --machine elsewhere.")
    ] = None,
    cpu: Annotated[
        int | None, typer.Option(help="CPU to measure on; the last one this process may use if left out.")
    ] = None,
    inherits: Annotated[
        str | None, typer.Option(help="Preset for what cannot be measured; the one that fits if left out.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure this machine's TLBs, walks, system calls and interrupts; needs no privileges."""
    from tlbcore._calibrate import calibrate, machine_text
    from tlbcore._core import ConfigError
    from tlbcore._machines import Machine, machine
    from tlbcore.inspect import inspect_host

    preset = machine(inherits) if inherits is not None else None
    fit = "as asked"
    if preset is None:
        try:
            host = inspect_host()
            preset, fit = host.machine, host.machine_fit
        except ConfigError as unreadable:
            fit = str(unreadable)
    found = calibrate(cpu=cpu)
    base = preset.name if preset is not None else "_generic"
    text = machine_text(found, base)
    Machine(name="calibrated.toml", text=text)  # it must load
    if out is not None:
        out.write_text(text, encoding="utf-8")
    if json:
        _common.print_json(
            "calibration",
            1,
            figures=list(found.figures.values()),
            curve=found.curve,
            cpu=found.cpu,
            hypervisor=found.hypervisor,
            predicted_getpid_ns=found.predicted_getpid_ns,
            getpid_error=found.getpid_error,
            inherits=base,
            seconds=found.seconds,
        )
        return
    from tlbcore._report import columns

    print(f"CPU {found.cpu}, measured in {found.seconds:.1f} s")
    rows = [["", "measured", "", "how"]]
    rows += [
        [f.name, f"{f.value:.4g}", f.unit if f.stable else f"{f.unit} (unstable)", f.about]
        for f in found.figures.values()
    ]
    for line in columns(rows, "<><<"):
        print(line)
    print(
        f"getpid predicted from the other measurements: {found.predicted_getpid_ns:.0f} ns, measured "
        f"{found.figures['getpid_ns'].value:.0f} ns ({found.getpid_error:+.0%})"
    )
    print(f"Everything else is inherited from {base} ({fit}).")
    if found.hypervisor:
        print("This is a guest: walks are nested and longer, IPIs may leave the guest and take much longer,")
        print("and a neighbour on the same core shares the TLBs, so reach may look smaller than it is.")
    if out is not None:
        print(f"Written to {out}: tlbcore compare --machine {out}")
