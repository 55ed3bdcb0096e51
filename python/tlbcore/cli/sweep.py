"""`tlbcore sweep`."""

from __future__ import annotations

import dataclasses
import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from tlbcore.cli import _common

_KEYS = (
    "scenario",
    "machine",
    "policies",
    "metrics",
    "replications",
    "seed",
    "fixed",
    "kernel",
    "grid",
    "zip",
)
SHOWN = ("ipis_per_hour", "interference_us_per_hour", "syscall_mean_ns", "housekeeping_wait_share")


def command(
    grid: Annotated[Path, typer.Argument(help="TOML file; see docs/sweeps.md.", metavar="GRID.toml")],
    out: Annotated[Path, typer.Option(help="Directory for the results; an interrupted sweep goes on.")],
    threads: Annotated[int | None, typer.Option(help="Threads; all CPUs when left out.", min=1)] = None,
    dask: Annotated[str | None, typer.Option(help="Scheduler of a Dask cluster.", metavar="ADDRESS")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Compute more than ten million points.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write the report as one self-contained page of HTML."),
    ] = None,
) -> None:
    """Simulate a grid of configurations into a Parquet data set."""
    if dask is not None and not dask.strip():
        _common.fail(f"--dask is the address of a scheduler, such as tcp://10.0.0.2:8786: got {dask!r}")
    if dask is not None and threads is not None:
        _common.fail("--threads are of this process, and --dask computes in others: leave --threads out")
    plan = _read(grid)
    from tlbcore.sweeps import run as sweeps

    with ExitStack() as open_:
        open_.enter_context(_common.without_inert_warnings())
        executor = open_.enter_context(_dask(dask)).get_executor() if dask else None
        advance = open_.enter_context(_common.progress("sweep", "points"))
        try:
            result = sweeps.sweep(
                **plan, out=out, threads=threads, executor=executor, yes=yes, progress=advance
            )
            if result.interrupted:
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            _common.note(f"interrupted; what is done is in {out}, and the same command goes on")
            raise
    failed = len(result.failed["error"])
    if failed == len(result):
        _common.fail(f"no point can be simulated: {result.failed['error'][0]}")
    names = [name for name in SHOWN if name in result.metrics] or result.metrics[:4]
    means = {name: result.effects(name, ["policy"]) for name in names if not _all_missing(result.table[name])}
    document = _common.document(
        "sweep", 1, out=out, points=len(result), failed=failed, parameters=result.parameters, inert=result._inert(),
        metrics={name: result.units[name] for name in result.metrics}, means_by_policy=means,
    )  # fmt: skip
    if html is not None:
        from tlbcore._output.html.swept import sweep as page

        _common.write_page(html, page(result, list(means), document))
    if json:
        _common.print_document(document)
        return
    print(f"{len(result)} points in {out}" + (f", {failed} of them failed" if failed else ""))
    if failed:
        print(f"first error: {result.failed['error'][0]}")
    for reason in result._inert():
        print(f"inert: {reason}")
    _show(means, "all points" if not failed else "the points that did not fail")


def _all_missing(values: Any) -> bool:
    import numpy as np

    return bool(np.isnan(values).all())


def _show(means: dict[str, Any], which: str) -> None:
    from rich.table import Table

    shown = Table(title=f"means over {which} (predicted)", box=None, title_justify="left")
    shown.add_column("policy")
    for name in means:
        shown.add_column(name, justify="right")
    policies = list(next(iter(means.values()))["value"]) if means else []
    for i, policy in enumerate(policies):
        shown.add_row(policy, *(f"{effects['mean'][i]:.5g}" for effects in means.values()))
    _common.print_table(shown)


def _dask(address: str) -> Any:
    try:
        import distributed
    except ModuleNotFoundError:
        _common.fail("--dask needs the package distributed: pip install 'tlbcore[cluster]'")
    client: Any = distributed.Client
    try:
        return client(address, timeout="10s")
    except ValueError as error:
        _common.fail(f"--dask: {error}")


def _read(file: Path) -> dict[str, Any]:
    """Turn the file into the arguments of `tlbcore.sweep`."""
    from tlbcore._input.names import unknown
    from tlbcore.kernel import Kernel

    try:
        document = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        _common.fail(f"{file}: {str(error)[:1].lower()}{str(error)[1:]}")
    for key in document:
        if key not in _KEYS:
            _common.fail(f"{file}: {unknown('key', key, _KEYS)}")
    kinds = {"fixed": dict, "kernel": dict, "grid": dict, "zip": list, "policies": list, "metrics": list}
    for key, kind in kinds.items():
        if not isinstance(document.get(key, kind()), kind):
            _common.fail(f"{file}: {key} must be a {'table' if kind is dict else 'list'}")
    if "scenario" not in document:
        _common.fail(f'{file}: scenario is missing, such as scenario = "syscall-heavy"')
    grid: dict[str | tuple[str, ...], Any] = dict(document.get("grid", {}))
    for group in document.get("zip", []):
        if not isinstance(group, dict) or not all(isinstance(values, list) for values in group.values()):
            _common.fail(f"{file}: a [[zip]] is a table of lists: got {group!r}")
        lengths = {len(values) for values in group.values()}
        if len(lengths) != 1:
            _common.fail(f"{file}: the lists of a [[zip]] must have one length: got {sorted(lengths)}")
        if tuple(group) in grid:
            _common.fail(f"{file}: two [[zip]] are of {', '.join(group)}: put their values into one")
        grid[tuple(group)] = list(zip(*group.values(), strict=True))
    if not grid:
        _common.fail(f"{file}: the grid is empty")
    plan: dict[str, Any] = {"base": document["scenario"], "grid": grid, "fixed": document.get("fixed", {})}
    for key in ("machine", "policies", "metrics", "replications", "seed"):
        if key in document:
            plan[key] = document[key]
    if "kernel" in document:
        known = [field.name for field in dataclasses.fields(Kernel)]
        for key in document["kernel"]:
            if key not in known:
                _common.fail(f"{file}: [kernel]: {unknown('key', key, known)}")
        plan["kernel"] = Kernel(**document["kernel"])
    return plan
