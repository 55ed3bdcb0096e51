"""`tlbcore extract IMAGE`: the entry and exit paths of a kernel image as a kernel text."""

from __future__ import annotations

from typing import Annotated

import typer

from tlbcore.cli import census


def command(
    image: Annotated[str, typer.Argument(help="/boot/vmlinuz-RELEASE (gzip, xz, lz4, zstd) or a vmlinux.")],
    features: census.Features = None,
    cpu: census.Cpu = None,
    this_machine: census.ThisMachine = False,
    variable: Annotated[
        list[str] | None,
        typer.Option(
            help="A policy's variable and the symbol that holds it; kernel_cr3_loaded is found by its name.",
            metavar="NAME=SYMBOL",
        ),
    ] = None,
) -> None:
    """Write the entry and exit paths of a kernel image as a kernel text, for check --kernel."""
    from tlbcore._input import images

    print(images.extract(image, census.chosen(features, cpu, this_machine), variable or ()), end="")
