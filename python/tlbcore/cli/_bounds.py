"""The bounds that `check` and `repair` share: how they are declared on the command line, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tlbcore.cli import _common

if TYPE_CHECKING:
    from tlbcore.policy import Policy

Cpus = Annotated[int, typer.Option(help="CPUs: one housekeeping, the others isolated; 2 to 5.")]
Nmis = Annotated[int, typer.Option(help="NMIs in all.")]
Mces = Annotated[int, typer.Option(help="Machine checks in all; they nest in NMIs.")]
Asids = Annotated[int, typer.Option(help="ASIDs per CPU, 1 or 2.")]
Pages = Annotated[int, typer.Option(help="Tracked vmalloc pages, 1 to 3.")]
Entries = Annotated[str, typer.Option(help="System calls per isolated CPU, or unbounded.")]
Rounds = Annotated[str, typer.Option(help="Flush rounds, or unbounded.")]
Assume = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE, repeatable: D, N, T, invpcid, stores, fills, gs, range."),
]
Roles = Annotated[
    str, typer.Option(help="What each CPU does, such as 'purge; purge; isolated 2'; instead of --cpus.")
]
World = Annotated[
    str,
    typer.Option(
        help="Machine and kernel as features: pti, nopti, nopti+invlpgb, nopti+fred, nopcid, ...; left out: pti "
        "if the policy needs it, otherwise the worst of those it runs in."
    ),
]
Memory = Annotated[
    str,
    typer.Option(
        help="Memory one search may use, such as 512M or 8G; auto: three quarters of what the machine, its control "
        "group and the limits of the process leave."
    ),
]


KernelVersion = Annotated[
    str | None,
    typer.Option(help="Linux whose texts the policies stand on: 6.12 or 7.3.", metavar="VERSION"),
]


def subject(policy: str, version: str | None, paths: Path | None, bounds: dict[str, Any]) -> str | Policy:
    """Return the policy to ask about, on the Linux of `--kernel-version` and the paths of the file of `--kernel`."""
    if version is None and paths is None:
        return policy
    from tlbcore.checker.question import programs_in
    from tlbcore.policy import as_policy

    of_world = bounds["world"].partition("@")[2]
    if version is not None and of_world not in ("", version):
        _common.fail(f"--kernel-version {version}, and --world names Linux {of_world}: leave one out")
    chosen = as_policy(policy, programs=programs_in(bounds))  # type: ignore[arg-type]
    return _common.standing_on([chosen], version, paths)[0]


def bounds(
    ctx: typer.Context, *, entries: str, rounds: str, assume: list[str] | None, memory: str, **rest: Any
) -> dict[str, Any]:
    """Return the bounds by the names of `tlbcore.check`; what `--roles` says is left to it."""
    said = {"cpus", "entries", "rounds"}
    if not rest["roles"] and "roles" in _common.given(ctx):
        _common.fail(f"--roles name a CPU each, such as 'purge; isolated 2': got {rest['roles']!r}")
    if not rest["world"].strip() and "world" in _common.given(ctx):
        _common.fail(
            "--world is a set of features such as nopti+invlpgb; left out, every one that matters is asked about: "
            f"got {rest['world']!r}"
        )
    if "nmis" not in _common.given(ctx):
        rest.pop("nmis")  # given as 0, what is assumed of NMIs is left out; not given, it is an error
    out = {
        **rest,
        "entries": times(entries),
        "rounds": times(rounds),
        "assume": assumptions(assume or []),
        "memory": size(memory),
    }
    if rest["roles"]:
        refuse(ctx, _common.given(ctx) & said, "--roles says who does what, and how often")
        out = {name: value for name, value in out.items() if name not in said}
    return out


def refuse(ctx: typer.Context, names: set[str], why: str) -> None:
    """Fail if an option was given that another one leaves nothing to say; it is named as it was given."""
    options = [
        (parameter.secondary_opts if ctx.params[name] is False else parameter.opts)[0]
        for parameter in ctx.command.params
        if (name := str(parameter.name)) in names
    ]
    if options:
        _common.fail(f"{why}: leave {' and '.join(sorted(options))} out")


def assumptions(words: list[str]) -> dict[str, str]:
    """Read NAME=VALUE words; the same name twice with two values is a contradiction."""
    out: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            _common.fail(f"an assumption is NAME=VALUE: got `{word}`")
        if out.setdefault(name, value) != value:
            _common.fail(f"`{name}` is assumed to be `{out[name]}` and `{value}`")
    return out


def times(text: str) -> int | str:
    """Read a number of runs; what is no number is left to the checker to judge."""
    return int(text) if text.removeprefix("-").isdecimal() else text


def size(text: str) -> int:
    """Read a number of bytes: 512M, 8G, or auto."""
    from tlbcore._input.memory import default_memory, within_limits

    if text == "auto":
        return default_memory()
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number, unit = (text[:-1], units.get(text[-1:].upper())) if text[-1:].isalpha() else (text, 1)
    if unit is None or not number.isdecimal() or int(number) == 0:
        _common.fail(f"memory is a number with K, M or G, or auto: got `{text}`")
    return within_limits(int(number) * unit)
